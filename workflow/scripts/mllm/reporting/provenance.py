"""Report the origin of numbers: software, devices, and the time of each stage."""

import subprocess
from pathlib import Path
from typing import Any

import polars as pl

from mllm.models.cards import Card, FineTuned, Merge
from mllm.reporting import page_tables

TIMES = {"stage": pl.String, "jobs": pl.Int64, "seconds": pl.Float64, "GPU-hours": pl.Float64, "longest (s)": pl.Float64, "peak GB": pl.Float64}  # fmt: skip


def tables(
    results: Path, taken: dict[str, list[dict[str, Any]]], cards: dict[str, Card], board: pl.DataFrame
) -> list[dict[str, Any]]:
    """Make the page's tables of times, cluster use and software.

    Args:
        results: the experiment's folder.
        taken: rows of the first two, of execution/stage_times.py.
        cards: cards of the experiment's models.
        board: the leaderboard.
    """
    used = taken.get("cluster")
    return [
        page_tables.table("Time", pl.DataFrame(taken.get("time", []), schema=TIMES), "time"),
        *([page_tables.table("Requested and used on the cluster", pl.DataFrame(used), "cluster")] if used else []),
        page_tables.table("Software and hardware", software(results, cards, board), "software"),
    ]


def software(results: Path, cards: dict[str, Card], board: pl.DataFrame) -> pl.DataFrame:
    """Return the project's commit at the time of the report, the models' devices, and the versions that made their weights."""
    names = board.select(pl.coalesce("whole", "candidate").unique().sort()).to_series()
    merges = [results / f"merges/{name}/merge.json" for name in names]
    made = [*cards.values(), *(Merge.read(f) for f in merges if f.exists())]
    versions: dict[str, set[str]] = {}
    for card in made:
        for library, version in sorted(card.versions.items()):
            versions.setdefault(library, set()).add(version)
    devices = sorted(
        {str(d) for d in (*board["device"], *(c.device for c in cards.values() if isinstance(c, FineTuned))) if d}
    )
    facts = {"git commit of the report": _commit(), "devices": ", ".join(devices) or "unknown"}
    facts |= {library: ", ".join(sorted(found)) for library, found in versions.items()}
    return pl.DataFrame({"what": list(facts), "value": [str(v) for v in facts.values()]})


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    except OSError:  # a container may have no git
        return "unknown"
    return done.stdout.strip() or "unknown"
