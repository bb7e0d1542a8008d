"""Measure the optimism of a choice: what choosing the best of many adds to its score, and how its runs vary."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from mllm.core.arrays import Array
from mllm.evaluation import metrics, significance, stability
from mllm.evaluation.shared_draws import Pairs

SELECTION = {
    "task": (pl.String, "task, or the tasks that merges over several cover"),
    "method": (pl.String, "merge method; all: the best of all merges"),
    "points": (pl.Int64, "recipes that were tried"),
    "winner": (pl.String, "the best on validation"),
    "metric": (pl.String, "compare.metric; over several tasks the normalised one"),
    "valid": (pl.Float64, "the winner on validation"),
    "test": (pl.Float64, "the winner on test"),
    "optimism": (pl.Float64, "validation minus test (test minus validation where smaller is better)"),
    "expected_optimism": (
        pl.Float64,
        "what choosing the best of as many equally good, equally correlated points adds on average",
    ),
    "expected_optimism_independent": (pl.Float64, "the same for independent points: an upper bound"),
    "chosen_again": (pl.Float64, "share of the resamples of validation in which the winner is the best again"),
    "second": (pl.String, "the other point that is the best most often"),
    "second_share": (pl.Float64, "the share of the resamples in which it is"),
    "crossfitted": (pl.Float64, "score of the best of each resample on the validation texts that it leaves out"),
    "optimism_tried": (pl.Float64, "valid minus crossfitted: what choosing among these points adds"),
    "runs": (pl.Int64, "runs of the winner with seeds of their own"),
    "run_deviation": (pl.Float64, "standard deviation between them on test"),
    "sampling_error": (pl.Float64, "the winner's standard error over texts on test"),
}


@dataclass(frozen=True)
class Choice:
    """Hold points, the first of which validation chose, with their scores and draws."""

    points: list[str]
    valid: float
    """Score of the first."""
    test: float
    draws: Array
    """(points, resamples) on validation."""
    left_out: Array
    """(points, first resamples) on the validation texts that each resample leaves out."""
    runs: int
    run_deviation: float | None
    sampling_error: float
    """The first one's standard error over texts on test."""

    def row(self, task: str, method: str, metric: str, larger: bool) -> dict[str, Any]:
        """Make a row of selection.csv; ``larger``: whether larger is better."""
        sign, several = 1.0 if larger else -1.0, len(self.points) > 1
        sure = stability.stability(self.draws, self.left_out, larger)
        expected = significance.expected_optimism(self.draws, larger)
        return {
            "task": task, "method": method, "points": len(self.points), "winner": self.points[0], "metric": metric,
            "valid": self.valid, "test": self.test, "optimism": sign * (self.valid - self.test), "expected_optimism": expected,
            "expected_optimism_independent": max(expected, significance.independent_optimism(self.draws.std(axis=1))),
            "chosen_again": sure.again, "second": self.points[sure.second] if several else None,
            "second_share": sure.second_share if several else None, "crossfitted": sure.crossfitted,
            "optimism_tried": sign * (self.valid - sure.crossfitted),
            "runs": self.runs, "run_deviation": self.run_deviation, "sampling_error": self.sampling_error,
        }  # fmt: skip


def selection(
    frame: pl.DataFrame, pairs: dict[str, Pairs], metric: str, over_tasks: Sequence[dict[str, Any]] = ()
) -> pl.DataFrame:
    """Make one row per task and method, and one for all methods: what was chosen, and how much of its lead is luck.

    Args:
        frame: the leaderboard.
        pairs: task -> draws.
        metric: which.
        over_tasks: rows of merges over several tasks, which are chosen for all their tasks at once.
    """
    rows = [*over_tasks]
    merged = frame.filter(pl.col("kind") == "merge", pl.col("whole").is_null())
    for (task,), part in merged.group_by("task", maintain_order=True):
        groups = [(str(m), rows_) for (m,), rows_ in part.group_by("method", maintain_order=True)]
        for method, points in sorted(groups, key=lambda g: g[0]) + ([("all", part)] if len(groups) > 1 else []):
            names, winner, drawn = points["candidate"].to_list(), points.row(0, named=True), pairs[str(task)]
            choice = Choice(
                names, winner[f"valid_{metric}"], winner[f"test_{metric}"], drawn.draws(names, metric, "valid"),
                drawn.left_out(names, metric), winner["runs"], winner[f"test_{metric}_sd"],
                float(drawn.draws(names[:1], metric).std()),
            )  # fmt: skip
            rows.append(choice.row(str(task), method, metric, metrics.sign(metric) > 0))
    return pl.DataFrame(rows, schema={name: kind for name, (kind, _) in SELECTION.items()})
