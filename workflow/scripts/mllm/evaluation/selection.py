"""How honest the choice was: what choosing the best of many adds to its score, and what its runs' seeds do."""

import polars as pl

from mllm.evaluation import metrics, significance, stability
from mllm.evaluation.shared_draws import Pairs

SELECTION = {
    "task": (pl.String, "task"),
    "method": (pl.String, "merge method; all: the best of all merges"),
    "points": (pl.Int64, "recipes that were tried"),
    "winner": (pl.String, "the best on validation"),
    "metric": (pl.String, "compare.metric"),
    "valid": (pl.Float64, "the winner on validation"),
    "test": (pl.Float64, "the winner on test"),
    "optimism": (pl.Float64, "validation minus test (the other way round where smaller is better)"),
    "expected_optimism": (
        pl.Float64,
        "what choosing the best of so many equally good, as correlated points would give",
    ),
    "expected_optimism_independent": (pl.Float64, "the same, were they independent: an upper bound"),
    "chosen_again": (pl.Float64, "share of the resamples of validation in which the winner is the best again"),
    "second": (pl.String, "what is the best most often among the others"),
    "second_share": (pl.Float64, "in which share of the resamples"),
    "crossfitted": (pl.Float64, "score of the best of each resample on the validation texts that it leaves out"),
    "optimism_tried": (pl.Float64, "valid minus crossfitted: what choosing among these very points adds"),
    "runs": (pl.Int64, "runs of the winner with seeds of their own"),
    "run_deviation": (pl.Float64, "standard deviation between them on test"),
    "sampling_error": (pl.Float64, "the winner's standard error over texts on test"),
}


def selection(frame: pl.DataFrame, pairs: dict[str, Pairs], metric: str) -> pl.DataFrame:
    """One row per task and method, and one for all methods: what was chosen, and how much of its lead is luck."""
    rows = []
    merged = frame.filter(pl.col("kind") == "merge")
    for (task,), part in merged.group_by("task", maintain_order=True):
        groups = [(str(m), rows_) for (m,), rows_ in part.group_by("method", maintain_order=True)]
        for method, points in sorted(groups, key=lambda g: g[0]) + ([("all", part)] if len(groups) > 1 else []):
            names = points["candidate"].to_list()
            valid = pairs[str(task)].draws(names, metric, "valid")
            winner = points.row(0, named=True)
            sure = stability.stability(valid, pairs[str(task)].left_out(names, metric), metrics.sign(metric) > 0)
            expected = significance.expected_optimism(valid, not metrics.METRICS[metric].smaller_is_better)
            rows.append({
                "task": task, "method": method, "points": len(names), "winner": names[0], "metric": metric,
                "valid": winner[f"valid_{metric}"], "test": winner[f"test_{metric}"],
                "optimism": metrics.sign(metric) * (winner[f"valid_{metric}"] - winner[f"test_{metric}"]),
                "expected_optimism": expected,
                "expected_optimism_independent": max(expected, significance.independent_optimism(valid.std(axis=1))),
                "chosen_again": sure.again, "second": names[sure.second] if len(names) > 1 else None,
                "second_share": sure.second_share if len(names) > 1 else None, "crossfitted": sure.crossfitted,
                "optimism_tried": metrics.sign(metric) * (winner[f"valid_{metric}"] - sure.crossfitted),
                "runs": winner["runs"], "run_deviation": winner[f"test_{metric}_sd"],
                "sampling_error": float(pairs[str(task)].draws(names[:1], metric).std()),
            })  # fmt: skip
    return pl.DataFrame(rows, schema={name: kind for name, (kind, _) in SELECTION.items()})
