"""Choose the merge over several tasks by its normalised scores on validation, as ``compare.tasks`` says."""

from collections.abc import Mapping

import numpy as np
import polars as pl

from mllm.core.errors import Failure
from mllm.evaluation import metrics


def own_experts(frame: pl.DataFrame, metric: str) -> dict[str, str]:
    """Return task -> its best expert on validation, which normalises scores. Experts of other tasks do not count.

    Args:
        frame: with candidate, task, kind, whole and valid_<metric>.
        metric: which.
    """
    experts = frame.filter(pl.col("kind") == "expert", pl.col("whole").is_null())
    best = experts.sort(f"valid_{metric}", descending=metrics.sign(metric) > 0, nulls_last=True, maintain_order=True)
    return dict(best.unique("task", keep="first", maintain_order=True).select("task", "candidate").rows())


def on_validation(frame: pl.DataFrame, metric: str, by: str) -> dict[str, float]:
    """Return merge over several tasks -> the number that it is chosen by.

    Args:
        frame: as for :func:`own_experts`, one row per candidate.
        metric: which.
        by: mean or worst of the normalised scores, or a task's name.

    Raises:
        Failure: a divisor is not above 0.
    """
    value = dict(frame.select("candidate", f"valid_{metric}").rows())
    expert = {task: value[name] for task, name in own_experts(frame, metric).items()}
    found: dict[str, dict[str, float]] = {}
    for task, name, whole in parts(frame).select("task", "candidate", "whole").rows():
        found.setdefault(whole, {})[task] = normalised(value[name], expert[task], metric, f"task {task}, {name}")
    return {whole: combined(scores, by) for whole, scores in found.items()}


def normalised(mine: float, expert: float, metric: str, where: str) -> float:
    """Divide a score by the expert's; where smaller is better, the expert's by the score.

    Raises:
        Failure: the divisor is not above 0.
    """
    top, bottom = (expert, mine) if metrics.METRICS[metric].smaller_is_better else (mine, expert)
    if bottom <= 0:
        raise Failure(
            f"{where}: {metric} cannot be normalised by the expert's (found {mine:.3f} and {expert:.3f} on validation, expected both above 0)."
            " Fix: compare.metric: accuracy or macro_f1"
        )
    return top / bottom


def combined(scores: Mapping[str, float], by: str) -> float:
    """Return the mean, the lowest or one task's normalised score."""
    return scores[by] if by in scores else float(min(scores.values()) if by == "worst" else np.mean([*scores.values()]))


def parts(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of merges over several tasks."""
    return frame.filter(pl.col("kind") == "merge", pl.col("whole").is_not_null())


def covered(frame: pl.DataFrame) -> dict[str, tuple[str, ...]]:
    """Return merge over several tasks -> the tasks that it covers, sorted."""
    grouped = parts(frame).group_by("whole", maintain_order=True).agg(pl.col("task").sort())
    return {whole: tuple(tasks) for whole, tasks in grouped.rows()}


def winners(frame: pl.DataFrame, metric: str, by: str) -> list[str]:
    """Return the best merge of each method and set of tasks: the largest sets first, then the best score first."""
    score, covers = on_validation(frame, metric, by), covered(frame)
    method = dict(parts(frame).select("whole", "method").rows())
    order = sorted(score, key=lambda whole: (-len(covers[whole]), covers[whole], -score[whole], whole))
    first: dict[tuple[str, tuple[str, ...]], str] = {}
    for whole in order:
        first.setdefault((method[whole], covers[whole]), whole)
    return list(first.values())


def best_runs(frame: pl.DataFrame, runs: pl.DataFrame, metric: str, by: str) -> dict[str, str]:
    """Return part of a merge over several tasks -> its run in the model's best run, which is chosen for all tasks at once.

    Args:
        frame: as for :func:`on_validation`.
        runs: the table of runs; the parts of a model have theirs in the same order.
        metric: which.
        by: as for :func:`on_validation`.
    """
    found: dict[str, str] = {}
    column = f"valid_{metric}"
    value = dict(frame.select("candidate", column).rows())
    expert = {task: value[name] for task, name in own_experts(frame, metric).items()}
    of = {name: part.select("run", column).rows() for (name,), part in runs.group_by("candidate", maintain_order=True)}
    for _, part in parts(frame).group_by("whole", maintain_order=True):
        names = dict(part.select("task", "candidate").rows())
        scores = [
            combined(
                {t: normalised(of[n][i][1], expert[t], metric, f"task {t}, {of[n][i][0]}") for t, n in names.items()},
                by,
            )
            for i in range(len(of[part["candidate"][0]]))
        ]
        best = int(np.argmax(scores))
        found |= {name: of[name][best][0] for name in names.values()}
    return found
