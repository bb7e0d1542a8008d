"""Make the leaderboard: one row per candidate, with its rank, gain and cost among the others."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from mllm.evaluation import metrics, run_table, significance, tasks_choice
from mllm.evaluation.run_table import ENDS
from mllm.evaluation.score_files import Scores
from mllm.evaluation.shared_draws import Pairs
from mllm.prediction.costs import Cost

PRICES = ("flops_per_review", "n_parameters")  # the cost is the first of these that all candidates have


def table(
    scores: list[tuple[Scores, Cost]], metric: str, pairs: dict[str, Pairs] | None = None,
    wholes: Mapping[str, str] | None = None, by: str = "mean",
) -> pl.DataFrame:  # fmt: skip
    """Make one row per candidate, task by task, best validation score first.

    Args:
        scores: of all runs, as from run_table.read_scores.
        metric: chooses each method's winner (on validation only) and sorts.
        pairs: task -> draws; needed where a candidate has several runs.
        wholes: candidate -> the model over several tasks that it belongs to.
        by: ``compare.tasks``, which chooses merges over several tasks.

    Returns:
        candidate, kind, method, task, members, one column per parameter, recipe, whole, winner, runs, replicates, best_run, the standard
        deviations between runs, then scores and costs as run_table.over_runs gives them.
    """
    runs = run_table.table(scores)
    frame = run_table.over_runs(runs, pairs or {}, metric)
    tasks = {task: i for i, task in enumerate(dict.fromkeys(frame["task"]))}
    order = pl.col("task").replace_strict(tasks, return_dtype=pl.Int64)
    descending = not metrics.METRICS[metric].smaller_is_better
    frame = frame.sort([order, f"valid_{metric}", "candidate"], descending=[False, descending, False])
    whole = pl.col("candidate").replace_strict(wholes or {}, default=None, return_dtype=pl.String)
    frame = frame.with_columns(whole=whole)
    own = frame.filter(pl.col("kind") == "merge", pl.col("whole").is_null())
    winners = own.group_by("task", "method", maintain_order=True).first()["candidate"]
    over: list[str] = []
    if wholes:  # one model, and one of its runs, is chosen for all of its tasks at once
        over, best = tasks_choice.winners(frame, metric, by), tasks_choice.best_runs(frame, runs, metric, by)
        frame = frame.with_columns(best_run=pl.col("candidate").replace_strict(best, default=pl.col("best_run")))
    merge = pl.col("kind") == "merge"
    frame = frame.with_columns(
        winner=merge & (pl.col("candidate").is_in(winners.implode()) | pl.col("whole").is_in(over).fill_null(False))
    )
    first = frame.columns[: frame.columns.index("recipe") + 1]
    said = ["whole", "winner", "runs", "replicates", "best_run", f"valid_{metric}_sd", f"test_{metric}_sd"]
    return frame.select(*first, *said, *(c for c in frame.columns if c not in (*first, *said)))


# ── Columns that compare a row with the others, inserted behind ``winner`` ──


def ranked(frame: pl.DataFrame, pairs: dict[str, Pairs], metric: str, runs: pl.DataFrame | None = None) -> pl.DataFrame:
    """Add rank, rank_low, rank_high (a set that holds the true rank), relative_gain, pareto and pareto_share, within each task.

    Args:
        frame: as from :func:`table`.
        pairs: task -> draws.
        metric: which.
        runs: the table of runs, where candidates have several; draws then include other trainings.
    """
    parts = []
    for (task,), part in frame.group_by("task", maintain_order=True):
        names = part["candidate"].to_list()
        draws, values = pairs[str(task)].draws(names, metric), part[f"test_{metric}"].to_numpy()
        if runs is not None:
            draws = draws + run_table.noise(
                runs.filter(pl.col("task") == task), names, f"test_{metric}", draws.shape[1]
            )
        rank, low, high = significance.rank_sets(values, draws, not metrics.METRICS[metric].smaller_is_better)
        added = [pl.Series(n, v, dtype=pl.Int64) for n, v in (("rank", rank), ("rank_low", low), ("rank_high", high))]
        gain = relative_gain(part, draws, values, pairs[str(task)].constant(metric), metric)
        added += [pl.Series(n, v, dtype=pl.Float64) for n, v in gain.items()]
        parts.append(
            part.with_columns(*added, pareto=pareto(part, metric), pareto_share=pareto_share(part, draws, metric))
        )
    whole = pl.concat(parts)
    first = frame.columns[: frame.columns.index("winner") + 1]
    new = ["rank", "rank_low", "rank_high", *(f"relative_gain{end}" for end, _ in ENDS), "pareto", "pareto_share"]
    return whole.select(*first, *new, *frame.columns[len(first) :])


def relative_gain(
    part: pl.DataFrame, draws: np.ndarray, values: np.ndarray, constant: np.ndarray, metric: str
) -> dict[str, list[float | None]]:
    """Return (merge − constant) / (best expert − constant) on test; validation chooses the best expert.

    The constant answer gives validation's shares of the classes and needs no model; an untrained head may be far below it. The
    result is None without experts, or where the expert's lead may be 0: the ratio would say nothing.

    Args:
        part: a task's rows of the leaderboard, best validation score first.
        draws: (candidates, resamples) of the metric.
        values: (candidates,)
        constant: (1 + resamples,) the constant answer's value and draws.
        metric: which.
    """
    kinds = [
        "" if whole else kind for kind, whole in part.select("kind", "whole").rows()
    ]  # experts of other tasks do not count
    found: dict[str, list[float | None]] = {f"relative_gain{end}": [None] * len(kinds) for end, _ in ENDS}
    if "expert" not in kinds:
        return found
    expert, floor, floor_draws = kinds.index("expert"), constant[0], constant[1:]
    lead = draws[expert] - floor_draws
    if np.quantile(metrics.sign(metric) * lead, 0.025) <= 0:
        return found
    for i in (i for i, kind in enumerate(part["kind"]) if kind == "merge"):
        low, high = np.quantile((draws[i] - floor_draws) / lead, [0.025, 0.975])
        one = (values[i] - floor) / (values[expert] - floor)
        for (end, _), value in zip(ENDS, (one, low, high), strict=True):
            found[f"relative_gain{end}"][i] = float(value)
    return found


def shown(row: dict[str, Any], tasks: Mapping[str, int]) -> str:
    """Return a candidate's name for people: parts of models over several tasks have the model's name.

    Args:
        row: of the leaderboard.
        tasks: model over several tasks -> number of tasks whose leaderboard has it.
    """
    whole = row["whole"]
    if not whole:
        return str(row["candidate"])
    return (
        f"{whole} (expert of another task)" if row["kind"] == "expert" else f"{whole} (one model, {tasks[whole]} tasks)"
    )


def wholes(frame: pl.DataFrame) -> dict[str, int]:
    """Return model over several tasks -> number of tasks whose leaderboard has it."""
    return dict(frame.drop_nulls("whole").group_by("whole").len().rows())


def parameters(frame: pl.DataFrame) -> list[str]:
    """Return the names of the recipes' parameters, each a column of the leaderboard."""
    return list(dict.fromkeys(name for recipe in frame["recipe"] for name in json.loads(recipe)))


def price(part: pl.DataFrame) -> str | None:
    """Return the column of the cost that all of a task's candidates have; None where there is none."""
    return next((c for c in PRICES if part[c].null_count() == 0), None)


def pareto(part: pl.DataFrame, metric: str) -> pl.Series:
    """Mark rows that no other row beats by being as good on test and cheaper, or better and as cheap; null without costs."""
    cost = price(part)
    if cost is None:
        return pl.Series("pareto", [None] * part.height, dtype=pl.Boolean)
    quality = metrics.sign(metric) * part[f"test_{metric}"].to_numpy()
    costs = part[cost].to_numpy().astype(float)
    as_good = (quality[None, :] >= quality[:, None]) & (costs[None, :] <= costs[:, None])
    better = (quality[None, :] > quality[:, None]) | (costs[None, :] < costs[:, None])
    return pl.Series("pareto", ~(as_good & better).any(axis=1))


def pareto_share(part: pl.DataFrame, draws: np.ndarray, metric: str) -> pl.Series:
    """Return the share of the resamples in which a row is on that front; null without costs."""
    cost = price(part)
    if cost is None:
        return pl.Series("pareto_share", [None] * part.height, dtype=pl.Float64)
    return pl.Series("pareto_share", significance.front_shares(metrics.sign(metric) * draws, part[cost].to_numpy()))


def count(value: float | None) -> str:
    """Write a number with its unit, for people: 124M."""
    if not value:
        return ""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return str(value)
