"""Detect a ``data.columns`` map in the wrong direction: file's name: our name, instead of our name: file's name."""

import csv
import math
from pathlib import Path
from typing import Any

import yaml

from mllm.experiment.review_columns import BUILT_IN


def in_our_direction(raw: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the values with ``data.columns`` in the right direction, and the problem if it was in the wrong one.

    An entry is in the wrong direction if its key, and not its value, is a column of the train file. A map is in the
    wrong direction if such an entry's value is one of our names. Other checks then use the corrected map.
    """
    data = raw.get("data")
    columns = data.get("columns") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(columns, dict) or not _mentions_ours(columns):
        return raw, []
    header = _header(data.get("train"))
    turned = {key: value for key, value in columns.items() if key in header and value not in header}
    wrong = [key for key, value in turned.items() if value in BUILT_IN]
    if not wrong:
        return raw, []
    right: dict[str, Any] = {}
    for key, value in columns.items():
        ours, theirs = (value, key) if key in turned else (key, value)
        right[ours] = [*_listed(right[ours]), *_listed(theirs)] if ours in right else theirs
    line = yaml.safe_dump(
        {"columns": right}, default_flow_style=True, sort_keys=False, allow_unicode=True, width=math.inf
    )
    found = f"found {wrong[0]}: {columns[wrong[0]]}, where {wrong[0]!r} is a column of {data['train']}"
    problem = (
        f"data.columns: map in the wrong direction ({found}; expected MLLM's name: the file's name)."
        f" Fix: {line.strip().removeprefix('{').removesuffix('}')}"
    )
    return {**raw, "data": {**data, "columns": right}}, [problem]


def _mentions_ours(columns: dict[Any, Any]) -> bool:
    """Return whether a value may be one of our names, so that the file's header is worth reading."""
    return any(isinstance(value, str) and value in BUILT_IN and value != key for key, value in columns.items())


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _header(path: Any) -> list[str]:
    """Return the column names of a table; empty if they cannot be read, which the first look at the file reports."""
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as stream:
            line = stream.readline().rstrip("\r\n")
    except (OSError, TypeError, UnicodeDecodeError, ValueError):
        return []
    return max((next(csv.reader([line], delimiter=delimiter), []) for delimiter in "\t,;"), key=len)
