"""Find faults of a table's file: its kind, its encoding, rows that are cut, quotation marks that swallow rows."""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import polars as pl

from mllm.core.errors import Failure

DELIMITERS = {"\t": "tab", ",": "comma", ";": "semicolon"}
PLAIN = " set data.quotes: none"
BLOCK = 1 << 24
KINDS = {
    b"\xff\xfe": "text in UTF-16 (by its byte-order mark). Fix: iconv -f UTF-16 -t UTF-8",
    b"\xfe\xff": "text in UTF-16 (by its byte-order mark). Fix: iconv -f UTF-16 -t UTF-8",
    b"\x1f\x8b": "compressed by gzip. Fix: gunzip",
    b"PK\x03\x04": "a zip archive or an Excel file. Fix: unzip it, or save it as CSV in UTF-8",
    b"PAR1": "a parquet file. Fix: write it as CSV (polars.read_parquet(…).write_csv(…))",
    b"\x28\xb5\x2f\xfd": "compressed by zstd. Fix: unzstd",
    b"BZh": "compressed by bzip2. Fix: bunzip2",
    b"\xfd7zXZ": "compressed by xz. Fix: unxz",
    b"SQLite format": "an SQLite database. Fix: export the table as CSV",
}
"""First bytes of a file that is not a UTF-8 table -> its kind and the fix."""


def check_kind(path: Path, first: bytes) -> None:
    """Refuse a file that is not text in UTF-8, by its first line, and name its kind."""
    for magic, what in KINDS.items():
        if first.startswith(magic):
            raise Failure(f"{path}: {what}")
    if b"\0" in first:
        raise Failure(
            f"{path}: has zero bytes: text in UTF-16 or UTF-32, or not a text. Fix: iconv -f UTF-16LE (or BE) -t UTF-8"
        )


def check_closed(path: Path) -> None:
    """Refuse a file with an odd number of quotation marks: one of them is never closed."""
    if sum(block.count(b'"') for block in _blocks(path)) % 2:
        raise Failure(
            f"{path}: a quoted field is never closed. Fix: download the file again if it is cut or damaged; where"
            f" quotation marks are plain characters,{PLAIN}"
        )


def _is_row(fields: list[str], numeric: list[int]) -> bool:
    """Return whether a line's fields are a row: numbers in the numeric columns, one of them before any closing quote.

    The last line of a correct text of several lines ends in fields of its own record, and may have commas before them.
    """
    closing = next((i for i, field in enumerate(fields) if field.count('"') % 2), None)
    return all(_is_number(fields[i]) for i in numeric) and (closing is None or any(i < closing for i in numeric))


def check_swallowed(path: Path, delimiter: str, frame: pl.DataFrame, starts: pl.Series, breaks: pl.Series) -> None:
    """Refuse a field of several lines, one of which is a row: a stray quotation mark swallowed the rows between.

    A line is a row if it has the header's number of fields, with numbers in the numeric columns. The number of fields
    alone proves nothing, since commas are frequent in texts.
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
                    f"{path}, line {number}: a quotation mark on line {record_of[number]} makes this row a part of that"
                    f" row's field. Fix: close the quotation mark; where such marks are plain characters,{PLAIN}"
                )


def _lines(stream: TextIO) -> Iterator[str]:
    """Yield lines that end in a line feed; a lone carriage return ends no line."""
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


def check_fields(path: Path, delimiter: str, width: int, quotes: bool) -> None:
    """Refuse a file with a row that has more or fewer fields than the header; name the first one."""
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = csv.reader(stream, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE)
        line = 1
        for row in rows:
            if row and len(row) != width:
                raise Failure(
                    f"{path}, line {line}: found {len(row)} fields, expected {width} as in the header: {_short(row)}. Fix:"
                    f" download the file again if it is cut; enclose fields that have a {DELIMITERS[delimiter]} or a line"
                    " break in quotation marks"
                )
            line = rows.line_num + 1


def _short(row: list[str]) -> str:
    text = repr(row)
    return text if len(text) <= 80 else text[:79] + "…"


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            yield block


def check_utf8(path: Path) -> None:
    """Refuse a file that is not UTF-8, and name the first wrong byte."""
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
        raise Failure(f"{path}: the file is cut in the middle of a character. Fix: download it again")


def _not_utf8(path: Path, content: bytes, error: UnicodeDecodeError, lines: int, position: int) -> Failure:
    line = lines + content.count(b"\n", 0, error.start) + 1
    return Failure(
        f"{path}, line {line}: byte 0x{content[error.start]:02x} at position {position + error.start} is not UTF-8. "
        f"Fix: iconv -f ENCODING -t UTF-8, with the file's own encoding (often WINDOWS-1252 for older Windows files)"
    )
