"""The verdict's first lines: may the merge replace what is larger, or the best expert; and what the answers are about."""

from typing import Any

import polars as pl

from mllm.evaluation import claim_sentences, leaderboard
from mllm.evaluation.comparison_table import Comparison

ALWAYS_THE_SAME = (
    "tfidf",
    "majority",
    "zero_shot",
    "few_shot",
    "linear_probe",
    "published",
)  # methods without a training


def answers(best: dict[str, Any], claims: list[Comparison], frame: pl.DataFrame) -> list[str]:
    """One line for each larger reference, the largest first, and one for the best expert.

    Args:
        best: the chosen merge's row of the leaderboard.
        claims: its own.
        frame: the task's leaderboard.
    """
    cost = leaderboard.price(frame)
    larger = larger_references(claims, frame)
    lines = [_answer(best, c, frame, cost) for c in larger]
    if not larger:
        lines = ["- This experiment has no larger model to compare with."]
    return lines + [_answer(best, c, frame, cost) for c in claims if c.kind == "expert"]


def larger_references(claims: list[Comparison], frame: pl.DataFrame) -> list[Comparison]:
    """Claims against references that cost more than the merge, the dearest first; the router is no model of its own."""
    larger = [c for c in claims if c.kind == "reference" and c.cost_ratio is not None and c.cost_ratio < 1]
    larger = [c for c in larger if row(frame, c.against)["method"] != "router"]
    return sorted(larger, key=lambda c: c.cost_ratio or 0)


def _answer(best: dict[str, Any], claim: Comparison, frame: pl.DataFrame, cost: str | None) -> str:
    other, column = row(frame, claim.against), f"test_{claim.metric}"
    what = f"the best expert, {claim.against}" if claim.kind == "expert" else claim.against
    ratio = claim.cost_ratio
    price = (
        "" if cost is None or ratio is None or 0.95 < ratio < 1.05 else f", at {claim_sentences.times(ratio)} its cost"
    )
    return (
        f"- **Replace {what}? {claim.answer}.** {best[column]:.3f} against {other[column]:.3f}:"
        f" {claim_sentences.difference(claim)}{price}."
    )


def about(best: dict[str, Any], claims: list[Comparison], frame: pl.DataFrame) -> list[str]:
    """Whether the answers are about the recipe or about one training, and what is open."""
    if best["replicates"] == 1:
        seeds = f" The merge's own draws are covered, by {best['runs']} seeds." if best["runs"] > 1 else ""
        return [
            "Claims are about these trained experts: each was trained once, and intervals cover the choice of reviews alone."
            f" It is open whether experts trained with other seeds would do the same; more `replicates` show it.{seeds}"
        ]
    once = [c.against for c in claims if trained_once(row(frame, c.against))]
    lines = [
        f"Claims are about the recipe: everything beneath it was trained {best['replicates']} times with other seeds, and intervals"
        " and tests cover reviews and trainings."
    ]
    if once:
        lines.append(f"Trained once, so that claims against them are about these very models: {', '.join(once)}.")
    return lines


def trained_once(other: dict[str, Any]) -> bool:
    """Whether another training of a rival could be another model, and there is none."""
    return other["runs"] == 1 and other["method"] not in ALWAYS_THE_SAME and other["kind"] != "base"


def row(frame: pl.DataFrame, candidate: str) -> dict[str, Any]:
    """A candidate's row of the leaderboard."""
    return frame.row(by_predicate=pl.col("candidate") == candidate, named=True)
