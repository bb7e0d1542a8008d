"""Write the verdict's part on models over several tasks: what one model keeps of the experts' scores, and what it may replace."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from mllm.core.counting import counted
from mllm.evaluation import claim_sentences, comparison_table, metrics, verdict_answers
from mllm.experiment.systems import SWITCH

BY = {"mean": "mean", "worst": "lowest"}


def lines(
    table: pl.DataFrame, comparisons: pl.DataFrame, selection: pl.DataFrame, margin: float, weak: Sequence[str] = ()
) -> list[str]:
    """Write about the chosen merge over several tasks: what it keeps, its claims, how it was chosen; empty without one.

    Args:
        table: as from OverTasks.table.
        comparisons: as from OverTasks.comparisons.
        selection: selection.csv.
        margin: how much worse still counts as not worse, as a share of the experts' score.
        weak: tasks whose expert may be no better than the constant answer.
    """
    chosen = table.filter("chosen").to_dicts()
    if not chosen:
        return []
    best, tasks = chosen[0], chosen[0]["tasks"].split()
    claims = comparisons.filter(pl.col("candidate") == best["system"], "claim").to_dicts()
    claims.sort(key=lambda c: c["family"] != "primary")
    row = selection.filter(pl.col("winner") == best["system"]).sort("points", descending=True).row(0, named=True)
    return [
        f"## One model for {len(tasks)} tasks", "",
        f"**{keeps(best, size(table, best))}** {loses(best)}", "",
        *answers(claims, margin), "",
        _made(best, row), *_about(best, row), "",
        _basis(claims, comparisons, margin), *[_weak(task) for task in weak if task in tasks], "",
    ]  # fmt: skip


def answers(claims: list[dict[str, Any]], margin: float) -> list[str]:
    """Return one line for each system that the merge may replace, the primary claim first."""
    return [_answer(claim, margin) for claim in sorted(claims, key=lambda c: c["family"] != "primary")]


def keeps(best: dict[str, Any], share: float | None) -> str:
    """Say what one model keeps of the experts' mean score, and the share of their parameters that it has."""
    low, high = best["mean_normalised_low"], best["mean_normalised_high"]
    cost = f", with {_percent(share)} of their parameters" if share else ""
    return (
        f"One model for {len(best['tasks'].split())} tasks keeps {_percent(best['mean_normalised'])} ({100 * low:.0f} to {100 * high:.0f})"
        f" of the experts' mean score{cost}."
    )


def size(table: pl.DataFrame, best: dict[str, Any]) -> float | None:
    """Return a model's parameters over those of all experts behind a switch; None where they are unknown."""
    experts = table.filter(pl.col("system") == SWITCH)["n_parameters"].to_list()
    return best["n_parameters"] / experts[0] if experts and experts[0] and best["n_parameters"] else None


def loses(best: dict[str, Any]) -> str:
    """Name the task in which it loses most, or gains least."""
    task = best["worst_task"]
    change = best[f"{task}_normalised"] - 1
    how = "It loses most on" if change < 0 else "It loses on no task. It gains least on"
    return f"{how} {task} ({_signed(change)})."


def _answer(claim: dict[str, Any], margin: float) -> str:
    """Answer whether the merge may replace another system: yes, no, or not shown; by the same rule as in a single task."""
    what = {SWITCH: "the experts behind a task switch"}.get(claim["against"], claim["against"])
    cost = claim_sentences.at_cost(claim["cost_ratio"], "parameters")
    means = comparison_table.meaning(claim["holds"], claim["low"], claim["high"], in_points(margin))
    family = " (primary claim)" if claim["family"] == "primary" else ""
    return (
        f"- **Replace {what}? {claim['answer']}.**{family} {_percent(claim['value'])} against"
        f" {_percent(claim['other'])}: {_points(claim['difference'])} points ({_points(claim['low'])} to {_points(claim['high'])}){cost}. {means}"
    )


def _made(best: dict[str, Any], row: dict[str, Any]) -> str:
    """Name the merge, and its score in each task."""
    label = metrics.METRICS[best["metric"]].label
    members = best["members"].split()
    chosen = (
        f"the best of {row['points']} merges over these tasks on validation"
        if row["points"] > 1
        else "the only merge over these tasks"
    )
    scores = ", ".join(
        f"{task} {best[task]:.3f} ({_percent(best[f'{task}_normalised'])})" for task in best["tasks"].split()
    )
    return f"**{best['system']}**, a merge of {counted(len(members), 'model')} by {best['method']}, {chosen}: {label} on test {scores}."


def _about(best: dict[str, Any], row: dict[str, Any]) -> list[str]:
    """Say how optimistic the choice is, and whether claims are about the recipe."""
    found = []
    if row["points"] > 1:
        found.append(
            f"It has {_percent(row['valid'])} on validation, which chose it, and {_percent(row['test'])} on test. Scored by validation"
            f" texts that did not choose: {_percent(row['crossfitted'])}. In {_percent(row['chosen_again'])} of resamples of validation it would be chosen again."
        )
    if row["run_deviation"] is None:
        found += verdict_answers.ONCE
    else:
        found += [
            "Claims are about the recipe: intervals and tests cover reviews and trainings.",
            f"Over its {row['runs']} runs the score has a standard deviation of {_percent(row['run_deviation'], 1)}.",
        ]
    return found


def _basis(claims: list[dict[str, Any]], comparisons: pl.DataFrame, margin: float) -> str:
    """Say what 100 % is, and how claims were corrected."""
    secondary = comparisons.filter(pl.col("family") == "secondary").height
    by = claims[0]["by"] if claims else "mean"
    of = f"the {BY[by]} score over the tasks" if by in BY else f"task {by}"
    return (
        f"100 % is the score of each task's best expert on validation. Differences are of {of}, in percentage points of it."
        f" {claim_sentences.correction(secondary, 'over these tasks')}"
        f" A loss below {in_points(margin)} counts as no worse. All systems: tasks.csv; all pairs: tasks_comparisons.csv."
    )


def _weak(task: str) -> str:
    return f"The best expert of {task} may be no better than the constant answer, so a share of its score says little."


def part(chosen: str, frame: pl.DataFrame, comparisons: pl.DataFrame, on: str) -> list[str]:
    """Write what the chosen model over several tasks does in one of them; empty where it does not cover that task.

    Args:
        chosen: the model's name.
        frame: the task's leaderboard.
        comparisons: the task's; those of the model are exploration.
        on: the number of test texts, in words.
    """
    mine = frame.filter(pl.col("kind") == "merge", pl.col("whole") == chosen).to_dicts()
    if not mine:
        return []
    metric = comparisons["metric"][0] if comparisons.height else None
    rows = [r for r in comparison_table.rows(comparisons) if r.candidate == mine[0]["candidate"] and r.kind != "base"]
    score = (
        f": {metrics.METRICS[metric].label} {claim_sentences.interval(mine[0], f'test_{metric}')} on {on}"
        if metric
        else ""
    )
    return [
        f"The model over several tasks, **{chosen}**, in this task{score}. Its differences here are exploration, without correction:",
        "", *[f"- Against {_rival(r)}: {claim_sentences.difference(r)}." for r in rows],
    ]  # fmt: skip


def _rival(row: comparison_table.Comparison) -> str:
    return {"expert": f"the best expert, {row.against}", "blend": f"the best blend, {row.against}"}.get(
        row.kind, row.against
    )


def in_points(margin: float) -> str:
    """Write a margin as percentage points of the experts' score: ``1 point``, ``0.5 points``."""
    points = f"{100 * margin:g}"
    return f"{points} point{'' if points == '1' else 's'}"


def _percent(value: float, digits: int = 0) -> str:
    return f"{100 * value:.{digits}f} %"


def _signed(value: float) -> str:
    return f"{_points(value, 0)} %"


def _points(value: float, digits: int = 1) -> str:
    return f"{100 * value:+.{digits}f}".replace("-", "−")
