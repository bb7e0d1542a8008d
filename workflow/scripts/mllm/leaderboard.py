"""The leaderboard: one row per candidate, and the same as a plain text table."""

import json
from pathlib import Path
from typing import Any

import polars as pl

METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "kappa", "nll")
SMALLER_IS_BETTER = ("nll",)
COST = ("n_parameters", "weights_bytes", "device", "predict_seconds", "reviews_per_second", "peak_memory_bytes")


def table(scores: list[dict[str, Any]], metric: str) -> pl.DataFrame:
    """One row per candidate, task by task, best validation score first.

    Args:
        scores: as from :func:`read_scores`.
        metric: chooses each method's winner (on validation alone) and sorts.

    Returns:
        candidate, kind, method, task, one column per parameter, winner, then
        ``valid_<metric>``, ``valid_<metric>_low``, ``valid_<metric>_high``, the same for test, and the cost.
    """
    names = dict.fromkeys(name for s in scores for name in s["parameters"])
    rows = []
    for s in scores:
        row: dict[str, Any] = {k: s[k] for k in ("candidate", "kind", "method", "task")}
        row["members"] = " ".join(s["members"])
        row |= {name: _cell(s["parameters"].get(name)) for name in names}
        row["winner"] = False
        for split in ("valid", "test"):
            for m in METRICS:
                value = s["scores"][split][m]
                row |= {
                    f"{split}_{m}": value["value"],
                    f"{split}_{m}_low": value["low"],
                    f"{split}_{m}_high": value["high"],
                }
        row |= {name: s["cost"].get(name) for name in COST}
        rows.append(row)
    descending = metric not in SMALLER_IS_BETTER
    frame = pl.DataFrame(rows, infer_schema_length=None)
    tasks = {task: i for i, task in enumerate(dict.fromkeys(frame["task"]))}
    order = pl.col("task").replace_strict(tasks, return_dtype=pl.Int64)
    frame = frame.sort([order, f"valid_{metric}", "candidate"], descending=[False, descending, False])
    merged = pl.col("kind") == "merge"
    winners = frame.filter(merged).group_by("task", "method", maintain_order=True).first()["candidate"]
    return frame.with_columns(winner=pl.col("candidate").is_in(winners.implode()))


def text(frame: pl.DataFrame, metric: str, title: str, leak: str = "") -> str:
    """The leaderboard for a terminal, a table for each task; winners of each method starred."""
    parts = []
    for (task,), rows in frame.group_by("task", maintain_order=True):
        heading = f"{title}: {rows.height} candidates, task {task}, sorted by {metric} on validation"
        parts += [heading, "", *_drawn(rows, metric), ""]
    note = "* the method's best recipe on validation; intervals: 95 % bootstrap over review texts, each counting once"
    return "\n".join([*parts, note, *([leak] if leak else [])]) + "\n"


def leak_line(facts: dict[str, Any]) -> str:
    """What the test reviews share with the train file, in numbers; nothing where test was drawn from all files.

    Args:
        facts: of data/split.json.
    """
    if facts["mode"] == "random" or not facts["test_rows"]:
        return ""
    leak, rows = facts["test_rows_also_in_train"], facts["test_rows"]
    found = f"{leak:,} of {rows:,} test reviews ({leak / rows:.1%}) stand in the train file too"
    if facts["mode"] == "official":
        return f"WARNING: {found}, and are kept (split.mode: official): all test scores are too good"
    return f"{found}, and are left out of test"


def _drawn(frame: pl.DataFrame, metric: str) -> list[str]:
    header = [
        "",
        "candidate",
        "kind",
        f"valid {metric}",
        f"test {metric}",
        "95 % interval",
        "test accuracy",
        "parameters",
        "reviews/s",
    ]
    lines = []
    for r in frame.iter_rows(named=True):
        lines.append([
            "*" if r["winner"] else "",
            r["candidate"],
            r["kind"],
            f"{r[f'valid_{metric}']:.3f}",
            f"{r[f'test_{metric}']:.3f}",
            f"{r[f'test_{metric}_low']:.3f} – {r[f'test_{metric}_high']:.3f}",
            f"{r['test_accuracy']:.3f}",
            _count(r["n_parameters"]),
            f"{r['reviews_per_second']:,.0f}" if r["reviews_per_second"] else "",
        ])  # fmt: skip
    widths = [max(len(line[i]) for line in [header, *lines]) for i in range(len(header))]
    left = (0, 1, 2)
    return [
        "  ".join(
            c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [header, ["─" * w for w in widths], *lines]
    ]


def read_scores(scores: Path, costs: Path, candidates: list[str]) -> list[dict[str, Any]]:
    """Each candidate's score file, with its cost."""
    return [
        {**json.loads((scores / f"{c}.json").read_text()), "cost": json.loads((costs / f"{c}.cost.json").read_text())}
        for c in candidates
    ]


def _cell(value: Any) -> Any:
    return json.dumps(value, sort_keys=True) if isinstance(value, dict) else value


def _count(value: int | None) -> str:
    if not value:
        return ""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return str(value)
