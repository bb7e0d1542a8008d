"""Write the leaderboard as plain text for terminals, and the number of test reviews that are also in train."""

from typing import Any

import polars as pl

from mllm.core.counting import counted
from mllm.evaluation import leaderboard, metrics


def text(frame: pl.DataFrame, metric: str, title: str) -> str:
    """Write the leaderboard for a terminal: one table for each task, with a star at each method's winner."""
    parts, tasks = [], leaderboard.wholes(frame)
    for (task,), rows in frame.group_by("task", maintain_order=True):
        heading = f"{title}: {counted(rows.height, 'candidate')}, task {task}, sorted by {metric} on validation"
        parts += [heading, "", *_drawn(rows, metric, tasks), ""]
    note = "* the method's best recipe on validation; intervals: 95 % over texts, each text counts once"
    if frame["runs"].max() != 1:
        note += ", and over runs; scores: means over runs, sd: standard deviation between them"
    if tasks:
        note += ". One model over several tasks is chosen for all of them at once (tasks.csv)"
    return "\n".join([*parts, note]) + "\n"


def leak_line(facts: dict[str, Any]) -> str:
    """Count the test reviews that are also in the train file; empty where test was drawn from all files.

    Args:
        facts: the content of data/split.json.
    """
    if facts["mode"] == "random" or not facts["test_rows"]:
        return ""
    leak, rows = facts["test_rows_also_in_train"], facts["test_rows"]
    found = f"Test reviews that are also in the train file: {leak:,} of {rows:,} ({100 * leak / rows:.1f} %)"
    if facts["mode"] == "official":
        return f"WARNING: {found}. The split keeps them (split.mode: official), so all test scores are too good."
    return f"{found}. The split leaves them out of test."


def _drawn(frame: pl.DataFrame, metric: str, tasks: dict[str, int]) -> list[str]:
    several = frame["runs"].max() != 1
    second = {} if metric == "accuracy" else {"test_accuracy": "test accuracy"}
    second |= {f"test_tuned_{metric}": "offsets fitted"} if metric in metrics.OF_CONFUSION else {}
    header = [
        "",
        "candidate",
        "kind",
        f"valid {metric}",
        f"test {metric}",
        "95 % interval",
        *(["sd", "runs"] if several else []),
        *second.values(),
        "parameters",
        "reviews/s",
    ]
    lines = []
    for r in frame.iter_rows(named=True):
        lines.append([
            "*" if r["winner"] else "",
            leaderboard.shown(r, tasks),
            r["kind"],
            f"{r[f'valid_{metric}']:.3f}",
            f"{r[f'test_{metric}']:.3f}",
            f"{r[f'test_{metric}_low']:.3f} – {r[f'test_{metric}_high']:.3f}",
            *([_deviation(r[f"test_{metric}_sd"]), str(r["runs"])] if several else []),
            *(f"{r[column]:.3f}" for column in second),
            leaderboard.count(r["n_parameters"]),
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


def _deviation(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
