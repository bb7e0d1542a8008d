"""Raw review tables read as text: the UCI files and whatever else an experiment file describes.

Nothing is repaired here; every row keeps the line of the file on which it starts.
"""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import polars as pl

from mllm.core.errors import Failure

# Our column -> its name in the UCI files, in what Kaggle made of them, and in copies by other hosts (pandas, Hugging Face).
# Where a file has several, the last one counts: the others are numbers of rows.
UCI = {
    "id": ("", "Unnamed: 0", "id", "patient_id", "uniqueID"), "drug": ("drugName",), "condition": ("condition",), "review": ("review",),
    "rating": ("rating",), "date": ("date",), "useful_count": ("usefulCount",),
}  # fmt: skip
PLAIN = " say data.quotes: none"
DELIMITERS = {"\t": "tab", ",": "comma", ";": "semicolon"}
BLOCK = 1 << 24
BOM = b"\xef\xbb\xbf"
KINDS = {
    b"\xff\xfe": "a text in UTF-16 (by its byte-order mark). Fix: iconv -f UTF-16 -t UTF-8",
    b"\xfe\xff": "a text in UTF-16 (by its byte-order mark). Fix: iconv -f UTF-16 -t UTF-8",
    b"\x1f\x8b": "compressed by gzip. Fix: gunzip",
    b"PK\x03\x04": "a zip archive or an Excel file. Fix: unzip it, or save it as CSV in UTF-8",
    b"PAR1": "a parquet file. Fix: write it as CSV (polars.read_parquet(…).write_csv(…))",
    b"\x28\xb5\x2f\xfd": "compressed by zstd. Fix: unzstd",
    b"BZh": "compressed by bzip2. Fix: bunzip2",
    b"\xfd7zXZ": "compressed by xz. Fix: unxz",
    b"SQLite format": "a database of SQLite. Fix: export the table as CSV",
}
"""First bytes of what is no table in UTF-8 -> what it is, and what to do."""

Columns = dict[str, list[str]]
"""Our column -> the file's columns that make it; several are joined, as paragraphs."""


def read_raw(path: Path, columns: Columns | None = None, quotes: bool = True) -> pl.DataFrame:
    """Read one raw file, one row per review.

    Args:
        path: a table with a header, separated by tabs, commas or semicolons, quoted as CSV files are.
        columns: what to read; none stands for the UCI or Kaggle names.
        quotes: whether quotation marks around a field are the format's; else they are characters like others.

    Returns:
        ``line`` (1 is the header) and our columns, as strings, in the order of ``columns``.

    Raises:
        Failure: the file is missing, not UTF-8, without a needed column, cut in the middle of a row, or a
            stray quotation mark swallows rows.
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
        _check_utf8(path)
        if quotes:
            _check_closed(path)
        _check_fields(path, delimiter, header, quotes)
        raise Failure(
            f"{path}: not a table separated by {DELIMITERS[delimiter]}s ({str(error).splitlines()[0]}); a field that has"
            f" quotation marks must stand in quotation marks, with its own doubled"
        ) from None
    if quotes:
        _check_closed(path)
    frame.columns = header
    # Where a row breaks off, its last fields are read as empty ones.
    if len(header) > 1 and (frame[header[-1]] == "").any():
        _check_fields(path, delimiter, header, quotes)
    breaks = frame.select(
        breaks=pl.sum_horizontal(pl.col(c).str.count_matches("\n", literal=True) for c in frame.columns)
    ).to_series()
    starts = (breaks + 1).cum_sum().shift(1, fill_value=0) + 2
    if quotes:
        _check_swallowed(path, delimiter, frame, starts, breaks)
    return frame.select(starts.cast(pl.Int64).alias("line"), *(_joined(names).alias(c) for c, names in chosen.items()))


def read_header(path: Path, columns: Columns | None, quotes: bool = True) -> tuple[str, list[str], Columns]:
    """Delimiter, all column names, and which of them make ours, from a table's first line.

    Raises:
        Failure: the file is missing, no table in UTF-8, or has not all needed columns once.
    """
    try:
        with path.open("rb") as stream:
            first = stream.readline()
    except FileNotFoundError:
        raise Failure(f"{path}: no such file; see data in the experiment file") from None
    except IsADirectoryError:
        raise Failure(f"{path}: a folder; expected a file (see data in the experiment file)") from None
    for magic, what in KINDS.items():
        if first.startswith(magic):
            raise Failure(f"{path}: {what}")
    if b"\0" in first:
        raise Failure(
            f"{path}: holds zero bytes: a text in UTF-16 or UTF-32, or no text. Fix: iconv -f UTF-16LE (or BE) -t UTF-8"
        )
    return _header(path, first, columns, quotes)


def _header(path: Path, first: bytes, columns: Columns | None, quotes: bool) -> tuple[str, list[str], Columns]:
    """Delimiter, all column names, and which of them make ours."""
    try:
        line = first.removeprefix(BOM).decode().rstrip("\r\n")
    except UnicodeDecodeError:
        _check_utf8(path)
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
        hint = "" if columns else "; for another table, map its columns (data.columns in the experiment file)"
        raise Failure(f"{path}, line 1: no column {', '.join(missing)}; found {found}{hint}")
    twice = [name for names in chosen.values() for name in names if header.count(name) > 1]
    if twice:
        raise Failure(f"{path}, line 1: column {twice[0]!r} stands {header.count(twice[0])} times")
    unique = [name if header.count(name) == 1 else f"{name} #{i}" for i, name in enumerate(header)]
    return delimiter, unique, chosen


def _check_closed(path: Path) -> None:
    if sum(block.count(b'"') for block in _blocks(path)) % 2:
        raise Failure(
            f"{path}: a quoted field is never closed; the file is cut or damaged (fetch it again), or it has quotation marks"
            f" that are plain characters:{PLAIN}"
        )


def _is_row(fields: list[str], numeric: list[int]) -> bool:
    """Whether a line's fields are a row's: numbers where the table has them, some of them before a quotation mark that closes.

    The last line of a text that rightly has several ends in fields of its record, and may have commas before.
    """
    closing = next((i for i, field in enumerate(fields) if field.count('"') % 2), None)
    return all(_is_number(fields[i]) for i in numeric) and (closing is None or any(i < closing for i in numeric))


def _check_swallowed(path: Path, delimiter: str, frame: pl.DataFrame, starts: pl.Series, breaks: pl.Series) -> None:
    """Refuse a field of several lines, one of which is a row by itself: a stray quotation mark swallowed the rows between.

    A line is a row where it has the header's number of fields, and those of numbers are numbers: commas alone are
    frequent in texts.
    """
    long = breaks > 0
    if frame.width < 2 or not long.any():
        return
    plain = frame.filter(~long)
    numeric = [
        i
        for i, c in enumerate(frame.columns)
        if plain.height and plain[c].str.strip_chars().cast(pl.Float64, strict=False).is_not_null().mean() > 0.95  # type: ignore[operator]
    ]
    if not numeric and (delimiter != "\t" or frame.width < 3):
        return
    record_of = {
        line + more: line
        for line, n in zip(starts.filter(long), breaks.filter(long), strict=True)
        for more in range(1, n + 1)
    }
    with path.open(encoding="utf-8-sig", newline="") as stream:
        for number, text in enumerate(_lines(stream), start=1):
            fields = text.rstrip("\r\n").split(delimiter) if number in record_of else []
            if len(fields) == frame.width and _is_row(fields, numeric):
                raise Failure(
                    f"{path}, line {number}: a row of its own, but a quotation mark on line {record_of[number]} makes it a part"
                    f" of that row's field. Fix: close the quotation mark; where such marks are plain characters,{PLAIN}"
                )


def _lines(stream: TextIO) -> Iterator[str]:
    """Lines that end in a line feed: a lone carriage return ends none."""
    rest = ""
    while block := stream.read(1 << 20):
        *lines, rest = (rest + block).split("\n")
        yield from lines
    yield rest


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_fields(path: Path, delimiter: str, header: list[str], quotes: bool) -> None:
    """Name the first row with more or fewer fields than the header, if there is one."""
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = csv.reader(stream, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE)
        line = 1
        for row in rows:
            if row and len(row) != len(header):
                raise Failure(
                    f"{path}, line {line}: a row of {len(row)} fields, the header has {len(header)}: {_short(row)}; is the file"
                    f" cut, or does a field with a {DELIMITERS[delimiter]} or a line break stand without quotation marks?"
                )
            line = rows.line_num + 1


def _short(row: list[str]) -> str:
    text = repr(row)
    return text if len(text) <= 80 else text[:79] + "…"


def _joined(names: list[str]) -> pl.Expr:
    if len(names) == 1:
        return pl.col(names[0])
    texts = [pl.col(n).str.strip_chars() for n in names]
    present = [pl.when(t != "").then(t) for t in texts]
    return pl.concat_str(present, separator="\n\n", ignore_nulls=True)


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            yield block


def _check_utf8(path: Path) -> None:
    """Say where a file stops being UTF-8, if it does."""
    lines, position, rest = 0, 0, b""
    for block in _blocks(path):
        content = rest + block
        try:
            content.decode("utf-8")
            rest = b""
        except UnicodeDecodeError as error:
            if error.end == len(content) and "end of data" in error.reason:  # a character across two blocks
                content, rest = content[: error.start], content[error.start :]
            else:
                raise _not_utf8(path, content, error, lines, position) from None
        lines, position = lines + content.count(b"\n"), position + len(content)
    if rest:
        raise Failure(f"{path}: ends in the middle of a character; the file is cut (fetch it again)")


def _not_utf8(path: Path, content: bytes, error: UnicodeDecodeError, lines: int, position: int) -> Failure:
    line = lines + content.count(b"\n", 0, error.start) + 1
    return Failure(
        f"{path}, line {line}: byte 0x{content[error.start]:02x} at position {position + error.start} is not UTF-8; "
        f"convert the file from its own encoding first (iconv -f ENCODING -t UTF-8; of older Windows files often WINDOWS-1252)"
    )
