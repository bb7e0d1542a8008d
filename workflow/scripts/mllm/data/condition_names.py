"""Restore condition names that lost letters at their ends.

The collectors of the reviews cut every condition as if by Python's ``strip("For ")``. Each of these letters is gone from
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
)  # "Perfor": the cut went through any "for", as in Performance Anxiety
CUT_AFTER = ("r", "o", "or", "ro", "oo")
ENOUGH = 3  # minimal occurrences of the complete word …
CLEARLY = 10  # … and minimal ratio to the occurrences of the cut word
WORD = re.compile(r"[^\W\d_]+")


def restore(names: Iterable[str], reviews: pl.Series) -> dict[str, str]:
    """Return the restored name of each cut name that the reviews identify without doubt.

    A completed word passes if it occurs often in reviews and conditions, and its cut form hardly occurs. A name is left
    as it is if no completion passes, or if two pass at the same end.

    Args:
        names: all condition names.
        reviews: texts about these conditions.
    """
    names = sorted(set(names))
    options = {name: [*_front(name), *_back(name)] for name in names}
    words = {w.lower() for found in options.values() for _, cut, whole in found for w in (cut, whole)}
    seen = occurrences(words, reviews, names)
    restored = {}
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
            restored[name] = result
    return restored


def is_debris(name: str) -> bool:
    """Return whether a name is the rest of a drug's name in brackets: ``min / sitagliptin)``."""
    return name.count(")") > name.count("(")


def occurrences(words: set[str], reviews: pl.Series, names: Iterable[str]) -> dict[str, int]:
    """Count how often each of the words (lower case) occurs as a separate word in the reviews and the names."""
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
        for word in words_of[1:-1]:  # words at the ends may be cut themselves
            if word in counts:
                counts[word] += 1
    return counts


def _front(name: str) -> list[tuple[str, str, str]]:
    """Return completions of a name's first word; conditions begin with a capital, so a small letter reveals a cut."""
    first = WORD.match(name)
    if not first or not name[0].islower():
        return []
    return [("front", first[0], before + first[0]) for before in CUT_BEFORE]


def _back(name: str) -> list[tuple[str, str, str]]:
    last = re.search(r"[^\W\d_]{3,}$", name)
    return [("back", last[0], last[0] + after) for after in CUT_AFTER] if last else []
