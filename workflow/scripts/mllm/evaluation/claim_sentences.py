"""Put one claim into words: what holds, its numbers, what may explain it, what it costs."""

from typing import Any

import polars as pl

from mllm.evaluation import leaderboard, metrics
from mllm.evaluation.claims import LEVEL
from mllm.evaluation.comparison_table import Comparison, meaning

UNITS = {"flops_per_review": "operations per review", "n_parameters": "parameters"}
OPERATIONS = "Operations per review are the floating-point operations of a model's matrix products for one review of mean length."


def sentence(row: Comparison, frame: pl.DataFrame, margin: float, every: pl.DataFrame) -> str:
    """Write one claim: the strongest statement that holds, its difference and p-value, the detectable difference, the cost."""
    other = frame.row(by_predicate=pl.col("candidate") == row.against, named=True)
    mine = frame.row(by_predicate=pl.col("candidate") == row.candidate, named=True)
    first = "Primary claim" if row.family == "primary" else "Claim"
    line = f"- {first}: {_statement(row, _named(other), margin)}."
    if row.deviation is not None:
        line += f" Over {row.runs} pairs of runs the difference has a standard deviation of {row.deviation:.3f}."
    family = every.filter(pl.col("family") == row.family).height
    if row.holds == "undecided" and row.detectable:
        line += f" A test alone finds a true difference of {row.detectable:.3f} with a probability of 80 %"
        more = f"; after correction over {family} claims it needs up to {row.detectable_holm:.3f}"
        line += (more if family > 1 else "") + "."
    line += _equivalence(row, margin) + _repaired(row) + _disagreement(row)
    return line + _cost(row.cost_ratio, str(leaderboard.price(frame)), mine, other)


def at_cost(ratio: float | None, unit: str) -> str:
    """Write the merge's cost over another's behind a difference: ``, at 1/7.8 of its parameters``; nothing where they are equal."""
    return "" if ratio is None or 0.95 < ratio < 1.05 else f", at {times(ratio)} its {unit}"


def _cost(ratio: float | None, unit: str, mine: dict[str, Any], other: dict[str, Any]) -> str:
    """Say what the merge costs in terms of the other: as counted, and as measured."""
    if ratio is None or 0.95 < ratio < 1.05:
        return ""
    line = f" It needs {times(ratio)} the {UNITS[unit]}"
    if other["method"] == "tfidf" and unit == "flops_per_review":
        line += " (the operations that count words are left out)"
    speeds = [row["reviews_per_second"] for row in (mine, other)]
    if all(speeds):
        slower = speeds[1] / speeds[0]
        line += f"; measured: {_three(max(slower, 1 / slower))} times as {'slow' if slower > 1 else 'fast'}"
    return line + "."


def correction(others: int, of: str) -> str:
    """Say how a task's claims are corrected: the primary one, and ``others`` beside it."""
    if not others:
        return "The primary claim is tested alone."
    claims = "other claim" if others == 1 else f"{others:,} other claims"
    return f"The primary claim is tested alone, the {claims} {of} after Holm correction."


def _statement(row: Comparison, name: str, margin: float) -> str:
    found = difference(row)
    p, p_not_worse, p_worse = (_p(found) for found in (row.p_holm, row.p_not_worse_holm, row.p_worse_holm))
    if row.holds == "better":
        return f"better than {name}: {found}; corrected p {p}"
    if row.holds == "no worse":
        chance = ", but that lead may be chance after correction" if row.verdict == "better" else ""
        lost = (
            f"lower than {name}, by less than the margin of {margin:g}"
            if row.high < 0
            else f"not worse by more than the margin of {margin:g} than {name}"
        )
        return f"{lost}: {found}{chance}; corrected p of a larger loss {p_not_worse}"
    if row.holds == "worse":
        return f"worse than {name}, by more than the margin of {margin:g}: {found}; corrected p of a smaller loss {p_worse}"
    why = f"A loss of more than {margin:g} is not ruled out (corrected p {p_not_worse}; 0.025 needed)"
    if row.holds == "behind":
        why = f"A loss of more than {margin:g} is neither shown nor ruled out (corrected p of no difference {p})"
    elif row.high < 0:
        why = f"After correction the difference may be chance (p {p}). {why}"
    return f"**not shown** against {name}: {found}. {meaning(row.holds, row.low, row.high, f'{margin:g}')} {why}"


def _equivalence(row: Comparison, margin: float) -> str:
    """Say whether both are within the margin of each other, where the experiment asks for it."""
    if row.p_equivalent_holm is None:
        return ""
    shown = "Both are equivalent" if row.p_equivalent_holm <= LEVEL / 2 else "Equivalence is not shown"
    return f" {shown} within {margin:g} (corrected p {_p(row.p_equivalent_holm)}; 0.025 needed)."


def _repaired(row: Comparison) -> str:
    """Give the difference with class offsets fitted on validation, where it says something else."""
    kind, what = (
        ("tuned", "class offsets") if row.tuned_low is not None else ("calibrated", "temperature and class offsets")
    )
    found, before, after = difference(row, kind), side(row), side(row, kind)
    if before > 0 and after <= 0:
        return f" With both models' {what} fitted on validation the lead is not shown, {found}: sharpening or class priors may explain it."
    return f" With both models' {what} fitted on validation: {found}." if before != after else ""


def _disagreement(row: Comparison) -> str:
    """Name metric, accuracy and likelihood where they point to different sides, each with an interval without 0."""
    others = {kind: label for kind, label in (("accuracy", "accuracy"), ("nll", "likelihood")) if kind != row.metric}
    kinds = {metrics.METRICS[row.metric].label: ""} | {label: kind for kind, label in others.items()}
    sides = {label: side(row, kind) for label, kind in kinds.items()}
    said = [
        f"{word} in "
        + " and ".join(f"{label}, {difference(row, kinds[label])}" for label in sides if sides[label] == way)
        for word, way in (("ahead", 1), ("behind", -1))
        if way in sides.values()
    ]
    return f" Measures disagree: {'; '.join(said)}." if len(said) == 2 else ""


def _numbers(row: Comparison, kind: str) -> tuple[float, float, float]:
    """Return difference, low and high of the metric, or of tuned, calibrated, accuracy or nll."""
    value, low, high = (getattr(row, f"{kind}_{key}" if kind else key) for key in ("difference", "low", "high"))
    return value, low, high


def side(row: Comparison, kind: str = "") -> int:
    """Return 1 where an interval is above 0, -1 where it is below, else 0."""
    _, low, high = _numbers(row, kind)
    return int(low > 0) - int(high < 0)


def difference(row: Comparison, kind: str = "") -> str:
    """Write a difference with its interval."""
    value, low, high = _numbers(row, kind)
    return f"{value:+.3f} ({low:+.3f} to {high:+.3f})"


def _named(row: dict[str, Any]) -> str:
    what = {"expert": "the best expert", "blend": "the best blend", "reference": "the reference"}[row["kind"]]
    if row["method"] == "router":
        what = "the expert of each review's slice"
    size = f", {count(row['n_parameters'])} parameters" if row["kind"] == "reference" and row["n_parameters"] else ""
    return f"{what}, {row['candidate']}{size}"


def interval(row: dict[str, Any], column: str) -> str:
    return f"{row[column]:.3f} ({row[f'{column}_low']:.3f} to {row[f'{column}_high']:.3f})"


def times(ratio: float) -> str:
    """Write a ratio of costs: ``1/12.5 of``, ``3 times``."""
    return f"1/{_three(1 / ratio)} of" if ratio < 1 else f"{_three(ratio)} times"


def _three(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def count(value: float) -> str:
    return leaderboard.count(value) or "0"


def _p(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:.2g}" if value >= 0.001 else "< 0.001"
