"""The verdict's first part where models cover several tasks: what one model keeps of the experts' scores, and whom it may replace."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from mllm.evaluation import claim_sentences, comparison_table, metrics
from mllm.evaluation.comparison_table import ANSWERS
from mllm.experiment.systems import SWITCH

BY = {"mean": "mean", "worst": "lowest"}


def lines(
    table: pl.DataFrame, comparisons: pl.DataFrame, selection: pl.DataFrame, margin: float, weak: Sequence[str] = ()
) -> list[str]:
    """The chosen merge over several tasks: what it keeps, its claims, how it was chosen; nothing where there is none.

    Args:
        table: as from OverTasks.table.
        comparisons: as from OverTasks.comparisons.
        selection: selection.csv.
        margin: how much worse still counts as not worse, as a share of the experts' score.
        weak: tasks whose expert is not surely better than the constant answer.
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
        *answers(claims, table), "",
        _made(best, row), *_about(best, row), "",
        _basis(claims, comparisons, margin), *[_weak(task) for task in weak if task in tasks], "",
    ]  # fmt: skip


def answers(claims: list[dict[str, Any]], table: pl.DataFrame) -> list[str]:
    """One line for each system that the merge may replace, the primary claim first."""
    return [_answer(claim, table) for claim in sorted(claims, key=lambda c: c["family"] != "primary")]


def keeps(best: dict[str, Any], share: float | None) -> str:
    """What one model keeps of the experts' mean score, with how many of their parameters."""
    low, high = best["mean_normalised_low"], best["mean_normalised_high"]
    cost = f", with {_percent(share)} of their parameters" if share else ""
    return (
        f"One model for {len(best['tasks'].split())} tasks keeps {_percent(best['mean_normalised'])} ({100 * low:.0f} to {100 * high:.0f})"
        f" of the experts' mean score{cost}."
    )


def size(table: pl.DataFrame, best: dict[str, Any]) -> float | None:
    """A model's parameters over those of all experts behind a switch; none where they are not known."""
    experts = table.filter(pl.col("system") == SWITCH)["n_parameters"].to_list()
    return best["n_parameters"] / experts[0] if experts and experts[0] and best["n_parameters"] else None


def loses(best: dict[str, Any]) -> str:
    """In which task it loses most, or gains least."""
    task = best["worst_task"]
    change = best[f"{task}_normalised"] - 1
    how = "It loses most on" if change < 0 else "It loses nowhere; it gains least on"
    return f"{how} {task} ({_signed(change)})."


def _answer(claim: dict[str, Any], table: pl.DataFrame) -> str:
    """May the merge replace another system: yes, no, or not shown; by the same rule as in a single task."""
    what = {SWITCH: "the experts behind a task switch"}.get(claim["against"], claim["against"])
    ratio = claim["cost_ratio"]
    price = "" if ratio is None or 0.95 < ratio < 1.05 else f", at {claim_sentences.times(ratio)} its parameters"
    family = " (primary claim)" if claim["family"] == "primary" else ""
    return (
        f"- **Replace {what}? {ANSWERS.get(claim['holds'] or '', 'Not shown')}.**{family} {_percent(claim['value'])} against"
        f" {_percent(claim['other'])}: {_points(claim['difference'])} points ({_points(claim['low'])} to {_points(claim['high'])}){price}."
    )


def _made(best: dict[str, Any], row: dict[str, Any]) -> str:
    """Which merge it is, and its score in each task."""
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
    return f"**{best['system']}**, a merge of {len(members)} models by {best['method']}, {chosen}: {label} on test {scores}."


def _about(best: dict[str, Any], row: dict[str, Any]) -> list[str]:
    """How the choice flatters, and whether claims are about the recipe."""
    found = []
    if row["points"] > 1:
        found.append(
            f"Chosen at {_percent(row['valid'])} on validation; {_percent(row['test'])} on test. Judged by validation texts that did not"
            f" choose: {_percent(row['crossfitted'])}. In {_percent(row['chosen_again'])} of resamples of validation it would be chosen again."
        )
    if row["run_deviation"] is None:
        found.append(
            "Claims are about these trained experts: each was trained once, and intervals cover the choice of reviews alone."
        )
    else:
        found.append(
            f"Claims are about the recipe: over its {row['runs']} runs the score has a standard deviation of {_percent(row['run_deviation'], 1)}."
        )
    return found


def _basis(claims: list[dict[str, Any]], comparisons: pl.DataFrame, margin: float) -> str:
    """What the percentages are of, and how claims were corrected."""
    secondary = comparisons.filter(pl.col("family") == "secondary").height
    by = claims[0]["by"] if claims else "mean"
    of = f"the {BY[by]} score over the tasks" if by in BY else f"task {by}"
    return (
        f"100 % is the score of each task's best expert on validation. Differences are of {of}, in percentage points of it."
        f" The primary claim is tested alone. The {secondary} other claims over these tasks have Holm's correction."
        f" A loss below {100 * margin:g} point{'' if margin == 0.01 else 's'} counts as no worse. All systems: tasks.csv; all pairs: tasks_comparisons.csv."
    )


def _weak(task: str) -> str:
    return f"The best expert of {task} is not shown to be better than the constant answer: a share of its score says little."


def part(chosen: str, frame: pl.DataFrame, comparisons: pl.DataFrame, on: str) -> list[str]:
    """What the chosen model over several tasks does in one of them; nothing where it does not cover it.

    Args:
        chosen: the model's name.
        frame: the task's leaderboard.
        comparisons: the task's, of which the model's are exploration.
        on: how many test texts, in words.
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


def _percent(value: float, digits: int = 0) -> str:
    return f"{100 * value:.{digits}f} %"


def _signed(value: float) -> str:
    return f"{_points(value, 0)} %"


def _points(value: float, digits: int = 1) -> str:
    return f"{100 * value:+.{digits}f}".replace("-", "−")
