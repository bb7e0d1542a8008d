"""Digest all that determines an experiment's reviews: jobs that read them depend on it, not on files' times.

So another data column, or a remade split with the same rows, reruns no training or prediction.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mllm.core.code_digest import code_digest
from mllm.core.files import read_json, write_json

ROWS = ("id", "rating", "review")  # columns by which rows are numbered, rejected, grouped
DERIVED = {"year": "date"}  # this project's column -> the file's column that it is taken from
BLOCK = 1 << 20


def digest(experiment: Any, columns: Iterable[str], scripts: Iterable[str], stratum: str, notes: Path) -> str:
    """Return a digest of the split's rows and of some of their columns.

    Args:
        experiment: its ``data``, ``split`` and ``seed`` determine how rows are made and split; files that ``data``
            names count by their content.
        columns: this project's columns that the reader of the reviews uses beside the texts.
        scripts: scripts that make the raw files, clean and split.
        stratum: definition of the task by whose classes the split is stratified; empty for other splits.
        notes: file that remembers digests of large files.
    """
    data = experiment.data
    mapped = getattr(data, "columns", None) or {}
    read = {DERIVED.get(column, column) for column in columns}
    named = data.model_dump(mode="json", exclude={"columns", "dates", "description"})
    files = {key: content(Path(value), notes) for key, value in named.items() if Path(str(value)).is_file()}
    facts = {
        **named,
        **files,
        "columns": {column: mapped.get(column) for column in sorted({*ROWS, *read})},
        "dates": getattr(data, "dates", None) if "date" in read else None,
        "split": experiment.split.model_dump(mode="json"),
        "seed": experiment.seed,
        "stratum": stratum,
        "code": [code_digest(script) for script in scripts],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def content(file: Path, notes: Path) -> str:
    """Return the SHA-256 of a file; read it again only if its size or time differs from the notes."""
    known = read_json(notes) if notes.exists() else {}
    state = [file.stat().st_size, file.stat().st_mtime_ns]
    if known.get(str(file), [None])[:-1] != state:
        found = hashlib.sha256()
        with file.open("rb") as stream:
            while block := stream.read(BLOCK):
                found.update(block)
        known[str(file)] = [*state, found.hexdigest()]
        write_json(notes, known)
    return str(known[str(file)][-1])
