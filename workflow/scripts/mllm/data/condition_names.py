"""Condition names that lost their ends, and what they were called before.

Whoever collected the reviews cut every condition as if by Python's ``strip("For ")``: each of these letters is gone from
both ends, so that no name begins with a capital F or ends in r or o. Fibromyalgia became ibromyalgia, Bipolar Disorder
became Bipolar Disorde.
"""

import re
from collections.abc import Iterable

import polars as pl

CUT_BEFORE = (
    "F",
    "Fo",
    "Fr",
    "For",
    "Fro",
    "Perfor",
)  # the last: the cut went up to any "for", as in Performance Anxiety
CUT_AFTER = ("r", "o", "or", "ro", "oo")
ENOUGH = 3  # times that the whole word must occur …
CLEARLY = 10  # … and how many times more often than the cut one
WORD = re.compile(r"[^\W\d_]+")


def mend(names: Iterable[str], reviews: pl.Series) -> dict[str, str]:
    """Cut names -> whole ones, where the reviews leave no doubt.

    A word is whole that occurs often in reviews and conditions, where its cut form hardly does; a name is left as it is
    where two ways of completing it pass, or none.

    Args:
        names: all condition names.
        reviews: texts that speak of these conditions.
    """
    names = sorted(set(names))
    options = {name: [*_front(name), *_back(name)] for name in names}
    words = {w.lower() for found in options.values() for _, cut, whole in found for w in (cut, whole)}
    seen = occurrences(words, reviews, names)
    mended = {}
    for name, found in options.items():
        likely = [
            (side, cut, whole)
            for side, cut, whole in found
            if seen[whole.lower()] >= max(ENOUGH, CLEARLY * seen[cut.lower()])
        ]
        sides = [side for side, _, _ in likely]
        if likely and len(set(sides)) == len(sides):  # at most one completion at each end
            result = name
            for side, cut, whole in likely:
                result = whole + result[len(cut) :] if side == "front" else result[: len(result) - len(cut)] + whole
            mended[name] = result
    return mended


def is_debris(name: str) -> bool:
    """Whether a name is the rest of a drug's name in brackets: ``min / sitagliptin)``."""
    return name.count(")") > name.count("(")


def occurrences(words: set[str], reviews: pl.Series, names: Iterable[str]) -> dict[str, int]:
    """How often each of the words (lower case) stands alone in the reviews and the names."""
    counts = dict.fromkeys(words, 0)
    if not words:
        return counts
    pattern = r"\b(?:" + "|".join(map(re.escape, sorted(words, key=lambda w: (-len(w), w)))) + r")\b"
    for part in reviews.to_frame("text").iter_slices(50_000):
        found = part["text"].str.to_lowercase().str.extract_all(pattern).explode().drop_nulls().value_counts()
        for word, count in found.iter_rows():
            counts[word] += count
    for name in names:
        words_of = [w.lower() for w in WORD.findall(name)]
        for word in words_of[1:-1]:  # those at the ends may be cut themselves
            if word in counts:
                counts[word] += 1
    return counts


def _front(name: str) -> list[tuple[str, str, str]]:
    """Completions of a name's first word; conditions begin with a capital, so a small letter tells a cut."""
    first = WORD.match(name)
    if not first or not name[0].islower():
        return []
    return [("front", first[0], before + first[0]) for before in CUT_BEFORE]


def _back(name: str) -> list[tuple[str, str, str]]:
    last = re.search(r"[^\W\d_]{3,}$", name)
    return [("back", last[0], last[0] + after) for after in CUT_AFTER] if last else []
