"""List the tables of predictions that were made elsewhere, and each candidate's kind.

Listing must stay cheap (no polars), since every job of Snakemake does it.
"""

import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from mllm.core.wording import listed
from mllm.experiment.value_types import LONGEST, NAME
from mllm.experiment.yaml_files import ExperimentError

if TYPE_CHECKING:
    from mllm.experiment.schema import Candidates


ENDINGS = (".parquet", ".csv")
OTHERS = (
    ".tsv",
    ".txt",
    ".gz",
    ".zip",
    ".xlsx",
    ".json",
    ".jsonl",
    ".feather",
    ".arrow",
    ".pq",
    ".npy",
    ".npz",
    ".pkl",
)
RUN = NAME.removesuffix("$") + "(@[1-9][0-9]*)?$"  # a candidate, or its run in another replicate


def tables(candidates: "Candidates") -> dict[str, Path]:
    """Return candidate -> its file, sorted by name.

    Raises:
        ExperimentError: the folder or its tables are missing, or a table's format or name is wrong or a duplicate.
    """
    folder = Path(candidates.from_)
    every = sorted(folder.iterdir()) if folder.is_dir() else []
    files = [f for f in every if f.suffix.lower() in ENDINGS]
    others = [f.name for f in every if any(f.name.lower().endswith(e) for e in OTHERS)]
    if others:
        raise ExperimentError(
            "experiment",
            [f"candidates.from: found {listed(others)} in {str(folder)!r}, expected tables that end in"
             f" {' or '.join(ENDINGS)}. Fix: convert these files, or move them away"],
        )  # fmt: skip
    long = [f.stem for f in files if len(f.stem) > LONGEST]
    if long:
        raise ExperimentError(
            "experiment",
            [f"candidates.from: table {s[:20]}…: name too long (found {len(s)} characters, expected at most {LONGEST})."
             " Fix: rename the file" for s in long],
        )  # fmt: skip
    strange = [f.stem for f in files if not re.fullmatch(RUN, f.stem)]
    if strange:
        raise ExperimentError(
            "experiment",
            [f"candidates.from: found table {s!r}, expected a name of letters, digits, '.', '_' and '-' that starts"
             " with a letter or digit. Fix: rename the file" for s in strange],
        )  # fmt: skip
    if not files:
        what = f"no tables ({' or '.join(ENDINGS)}) in" if folder.is_dir() else "no folder"
        raise ExperimentError("experiment", [f"candidates.from: {what} {str(folder)!r}"])
    twice = [f.stem for f in files if sum(g.stem == f.stem for g in files) > 1]
    if twice:
        raise ExperimentError(
            "experiment",
            [f"candidates.from: {twice[0]!r} is in {str(folder)!r} as parquet and CSV. Fix: move one of them away"],
        )  # fmt: skip
    alone = [f.stem for f in files if "@" in f.stem and f.stem.partition("@")[0] not in {g.stem for g in files}]
    if alone:
        first = alone[0].partition("@")[0]
        raise ExperimentError(
            "experiment", [f"candidates.from: {alone[0]!r} is a further run of {first!r}, whose table is missing"]
        )
    return {f.stem: f for f in files}


def kinds(candidates: "Candidates", names: list[str]) -> dict[str, str]:
    """Return candidate -> its kind.

    Raises:
        ExperimentError: a pattern matches no table, or a table matches no pattern or patterns of two kinds.
    """
    problems: list[str] = []
    found: dict[str, str] = {}
    for kind, patterns in candidates.kinds.items():
        for pattern in patterns:
            mine = [n for n in names if fnmatchcase(n.partition("@")[0], pattern)]
            if not mine:
                problems.append(f"candidates.kinds.{kind}: {pattern!r} matches none of {listed(names)}")
            for name in mine:
                if found.setdefault(name, kind) != kind:
                    problems.append(
                        f"candidates.kinds.{kind}: {pattern!r} matches {name!r}, which is also {found[name]}"
                    )
    rest = [n for n in names if n not in found]
    if rest:
        problems.append(f"candidates.kinds: no kind for {listed(rest)}. Fix: name each table, or move it away")
    if problems:
        raise ExperimentError("experiment", problems)
    return found


def parameters(candidates: "Candidates", name: str) -> int | None:
    """Return a candidate's number of parameters, by the first name or pattern that matches; None without a match."""
    plain = name.partition("@")[0]
    return next((n for pattern, n in candidates.parameters.items() if fnmatchcase(plain, pattern)), None)
