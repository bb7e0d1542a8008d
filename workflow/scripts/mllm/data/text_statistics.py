"""Compute statistics of review texts: one row of numbers per review.

This uses polars instead of a readability library. textstat, the best maintained one, takes 17 s for one of its cheaper
scores on 215,063 reviews; everything here takes less. It also downloads a dictionary for its syllable-based scores.
"""

import json
from pathlib import Path
from typing import Any

import polars as pl

from mllm.core.errors import Failure
from mllm.data.cleaning import SLICE, in_slices
from mllm.experiment.review_columns import STATISTICS

NEGATIONS = (
    r"(?i)\b(?:no|not|never|none|nobody|nothing|nowhere|neither|nor|cannot|without|hardly|barely|"
    r"(?:ai|are|ca|could|did|does|do|had|has|have|is|must|need|should|was|were|wo|would)n['’]?t)\b"
)
EMPHASIS = r"[!?]{2,}|\.{3,}|…|[:;=]-?[()DP]"
SENTENCE_END = r"[.!?…]+[\"'”’)]*(?:\s|$)"


def statistics(texts: pl.Series) -> pl.DataFrame:
    """Return one row per text: all of STATISTICS except the tokens."""
    return pl.concat(in_slices(texts.to_frame("review"), _of_slice))


def _of_slice(part: pl.DataFrame) -> pl.DataFrame:
    text = pl.col("review")
    counted = part.select(
        characters=text.str.len_chars(),
        words=text.str.count_matches(r"\S+"),
        sentences=text.str.count_matches(SENTENCE_END).clip(1),
        letters=text.str.count_matches(r"\pL"),
        digits=text.str.count_matches(r"\d"),
        uppercase=text.str.count_matches(r"\p{Lu}"),
        exclamations=text.str.count_matches("!", literal=True),
        negations=text.str.count_matches(NEGATIONS),
        emphasis=text.str.count_matches(EMPHASIS),
    )
    words = pl.col("words").clip(1)
    index = 4.71 * (pl.col("letters") + pl.col("digits")) / words + 0.5 * words / pl.col("sentences") - 21.43
    return counted.with_columns(
        readability=index.round(2), capitals=(pl.col("uppercase") / pl.col("letters").clip(1)).round(4)
    ).select(name for name in STATISTICS if name != "tokens")


def token_counts(texts: pl.Series, model: Path) -> pl.Series:
    """Count each text's tokens, special ones included, with a model folder's tokenizer.

    Only the tokenizer is loaded, without transformers. If its words never cross single spaces, each distinct word is
    encoded once: reviews repeat words, and encoding complete reviews takes five times as long.

    Raises:
        Failure: the folder has no fast tokenizer.
    """
    from tokenizers import Tokenizer

    file = model / "tokenizer.json"
    if not file.exists():
        raise Failure(f"{file}: no such file. Fix: use a base with a fast tokenizer")
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    apart = _splits_at_spaces(json.loads(file.read_text(encoding="utf-8")))
    special = tokenizer.num_special_tokens_to_add(False)
    words = pl.DataFrame(schema={"word": pl.String, "tokens": pl.UInt32})
    counts = []
    for part in texts.to_frame("text").with_row_index("row").iter_slices(SLICE):
        # Two adjacent white-space characters may be one token, or several.
        regular = ~part["text"].str.contains(r"\s\s|^\s|\s$") & apart
        pieces = part.filter(regular).select("row", word=pl.col("text").str.split(" ")).explode("word")
        first = pl.col("row") != pl.col("row").shift(1)
        pieces = pieces.with_columns(
            word=pl.when(first.fill_null(True)).then("word").otherwise(pl.lit(" ") + pl.col("word"))
        )
        new = pieces.select(pl.col("word").unique()).join(words, on="word", how="anti")["word"]
        words = pl.concat([words, pl.DataFrame({"word": new, "tokens": _lengths(tokenizer, new)})])
        sums = pieces.join(words, on="word").group_by("row").agg(pl.col("tokens").sum() + special)
        whole = part.filter(~regular)
        others = whole.select("row", tokens=_lengths(tokenizer, whole["text"]) + special)
        counts.append(pl.concat([sums, others]).sort("row")["tokens"])
    return pl.concat(counts)


def _splits_at_spaces(tokenizer: dict[str, Any]) -> bool:
    """Return whether a tokenizer always begins a new word at a single space between two other characters.

    GPT-2's pattern does: none of its alternatives continues from a letter, digit or sign into a space. BERT splits at
    all spaces.
    """
    before = tokenizer.get("pre_tokenizer") or {}
    if before.get("type") == "ByteLevel":
        return bool(before.get("use_regex")) and tokenizer.get("normalizer") is None
    return before.get("type") in ("BertPreTokenizer", "Whitespace", "WhitespaceSplit")


def _lengths(tokenizer: Any, texts: pl.Series) -> pl.Series:
    encoded = tokenizer.encode_batch_fast(texts.to_list(), add_special_tokens=False)
    return pl.Series("tokens", [len(e) for e in encoded], dtype=pl.UInt32)


def summary(table: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    """Return one row per split and column: count, mean, sd, minimum, quartiles, 95 % quantile, maximum.

    Args:
        table: a table with ``split`` and the columns.
        names: the columns to summarise.
    """
    rows: list[dict[str, Any]] = []
    for (split,), part in table.group_by("split", maintain_order=True):
        for name in names:
            values = part[name].drop_nulls().cast(pl.Float64)
            if values.len():
                rows.append({
                    "split": split, "column": name, "reviews": values.len(), "mean": values.mean(), "sd": values.std(),
                    "minimum": values.min(), **{f"q{q}": values.quantile(q / 100, "linear") for q in (25, 50, 75, 95)},
                    "maximum": values.max(),
                })  # fmt: skip
    return pl.DataFrame(rows)


def repairs(quality: dict[str, Any], split: dict[str, Any]) -> pl.DataFrame:
    """List the problems found in the raw files and their repairs: file, what, rows, share of the file's rows."""
    rows: list[tuple[str, str, int, float]] = []
    for file in ("train", "test"):
        if file not in quality:
            continue
        counts = quality[file]
        found = {k: v for k, v in counts.items() if isinstance(v, int) and k not in ("rows", "kept")}
        found |= {f"rejected: {reason}": n for reason, n in counts["rejected"].items()}
        rows += [(file, what.replace("_", " "), n, n / counts["rows"]) for what, n in found.items()]
    total = sum(quality[f]["rows"] for f in ("train", "test") if f in quality)
    restored = quality["conditions_mended"]
    for what, n in (("restored", restored["rows"]), ("not restored", sum(restored["left"].values()))):
        rows.append(("both", f"conditions cut, {what}", n, n / total))
    if split["test_rows"] and split["mode"] != "random":
        leak = split["test_rows_also_in_train"]
        rows.append(("test", "text also in the train file", leak, leak / split["test_rows"]))
    return pl.DataFrame(rows, schema=["file", "what", "rows", "share"], orient="row")
