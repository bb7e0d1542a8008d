"""Read raw review tables as text: the UCI files, and any table that an experiment file describes.

Nothing is repaired here; every row keeps the number of the line on which it starts.
"""

import csv
from pathlib import Path

import polars as pl

from mllm.core.errors import Failure
from mllm.data import table_faults
from mllm.data.table_faults import DELIMITERS

# Our column -> its name in the UCI files, in Kaggle's version, and in copies by other hosts (pandas, Hugging Face).
# If a file has several of these names, the last one counts: the others are row numbers.
UCI = {
    "id": ("", "Unnamed: 0", "id", "patient_id", "uniqueID"), "drug": ("drugName",), "condition": ("condition",), "review": ("review",),
    "rating": ("rating",), "date": ("date",), "useful_count": ("usefulCount",),
}  # fmt: skip
BOM = b"\xef\xbb\xbf"
AGAIN = "#again"  # no column of a user's own can have this name

Columns = dict[str, list[str]]
"""Our column -> the file's columns that make it; several are joined, as paragraphs."""


def read_raw(path: Path, columns: Columns | None = None, quotes: bool = True) -> pl.DataFrame:
    """Read one raw file, one row per review.

    Args:
        path: a table with a header, separated by tabs, commas or semicolons, quoted as CSV files are.
        columns: the columns to read; ``None`` means the UCI or Kaggle names.
        quotes: whether quotation marks enclose fields; if not, they are ordinary characters.

    Returns:
        ``line`` (1 is the header) and our columns, as strings, in the order of ``columns``. Without ``id``, also
        :data:`AGAIN`: whether an earlier row equals this one in all of the file's columns.

    Raises:
        Failure: the file is missing or is not UTF-8; a required column is missing; a row is cut; a stray quotation
            mark swallows rows.
    """
    delimiter, header, chosen = read_header(path, columns, quotes)
    try:
        frame = pl.read_csv(
            path,
            separator=delimiter,
            quote_char='"' if quotes else None,
            glob=False,
            infer_schema=False,
            empty_string_is_null=False,
            has_header=True,
        )
    except pl.exceptions.PolarsError as error:
        table_faults.check_utf8(path)
        if quotes:
            table_faults.check_closed(path)
        table_faults.check_fields(path, delimiter, len(header), quotes)
        raise Failure(
            f"{path}: not a table separated by {DELIMITERS[delimiter]}s ({str(error).splitlines()[0]}). Fix: enclose"
            f" each field that has quotation marks in quotation marks, and double its own"
        ) from None
    if quotes:
        table_faults.check_closed(path)
    frame.columns = header
    # The last fields of a row that is cut are read as empty.
    if len(header) > 1 and (frame[header[-1]] == "").any():
        table_faults.check_fields(path, delimiter, len(header), quotes)
    breaks = frame.select(
        breaks=pl.sum_horizontal(pl.col(c).str.count_matches("\n", literal=True) for c in frame.columns)
    ).to_series()
    starts = (breaks + 1).cum_sum().shift(1, fill_value=0) + 2
    if quotes:
        table_faults.check_swallowed(path, delimiter, frame, starts, breaks)
    ours = [_joined(names).alias(c) for c, names in chosen.items()]
    again = [] if "id" in chosen else [_again(frame).alias(AGAIN)]
    return frame.select(starts.cast(pl.Int64).alias("line"), *ours, *again)


def _again(frame: pl.DataFrame) -> pl.Series:
    """Return whether each row equals an earlier one, by 128-bit hashes, ignoring white space around fields."""
    plain = frame.select(pl.all().str.strip_chars())
    hashed = pl.DataFrame([plain.hash_rows(seed).alias(str(seed)) for seed in (1, 2)])
    return hashed.select(~pl.struct(pl.all()).is_first_distinct()).to_series()


def read_header(path: Path, columns: Columns | None, quotes: bool = True) -> tuple[str, list[str], Columns]:
    """Return the delimiter, all column names, and those that make our columns, from a table's first line.

    Raises:
        Failure: the file is missing or is not a table in UTF-8, or a required column does not occur exactly once.
    """
    try:
        with path.open("rb") as stream:
            first = stream.readline()
    except FileNotFoundError:
        raise Failure(f"{path}: no such file. Fix: correct data in the experiment file") from None
    except IsADirectoryError:
        raise Failure(f"{path}: found a folder, expected a file. Fix: correct data in the experiment file") from None
    table_faults.check_kind(path, first)
    return _header(path, first, columns, quotes)


def _header(path: Path, first: bytes, columns: Columns | None, quotes: bool) -> tuple[str, list[str], Columns]:
    """Return the delimiter, all column names, and those that make our columns."""
    try:
        line = first.removeprefix(BOM).decode().rstrip("\r\n")
    except UnicodeDecodeError:
        table_faults.check_utf8(path)
        raise
    best: tuple[int, str, list[str], Columns, list[str]] | None = None
    for delimiter in DELIMITERS:
        header = next(
            csv.reader([line], delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE), []
        )
        if columns is None:
            chosen = {ours: [name] for ours, names in UCI.items() for name in names if name in header}
            missing = [" or ".join(map(repr, names)) for names in UCI.values() if not set(names) & set(header)]
        else:
            chosen = columns
            missing = [repr(name) for names in columns.values() for name in names if name not in header]
        if best is None or (len(missing), -len(header)) < (best[0], -len(best[2])):
            best = (len(missing), delimiter, header, chosen, missing)
    assert best is not None
    _, delimiter, header, chosen, missing = best
    if missing:
        found = ", ".join(map(repr, header)) or "nothing"
        hint = "" if columns else ". Fix: for another table, map its columns (data.columns in the experiment file)"
        raise Failure(f"{path}, line 1: no column {', '.join(missing)} (found {found}){hint}")
    twice = [name for names in chosen.values() for name in names if header.count(name) > 1]
    if twice:
        raise Failure(f"{path}, line 1: column {twice[0]!r} occurs {header.count(twice[0])} times, expected once")
    unique = [name if header.count(name) == 1 else f"{name} #{i}" for i, name in enumerate(header)]
    return delimiter, unique, chosen


def _joined(names: list[str]) -> pl.Expr:
    if len(names) == 1:
        return pl.col(names[0])
    texts = [pl.col(n).str.strip_chars() for n in names]
    present = [pl.when(t != "").then(t) for t in texts]
    return pl.concat_str(present, separator="\n\n", ignore_nulls=True)
