"""Write the verdict's first lines: may the merge replace larger references, or the best expert? And their scope."""

from typing import Any

import polars as pl

from mllm.evaluation import claim_sentences, leaderboard
from mllm.evaluation.comparison_table import Comparison, meaning

ONCE = (
    "Claims are about these trained experts: each was trained once, and intervals cover the choice of reviews alone.",
    "It is open whether experts trained with other seeds would do the same; more `replicates` show it.",
)
"""What claims are about where everything was trained once."""

ALWAYS_THE_SAME = (
    "tfidf",
    "majority",
    "zero_shot",
    "few_shot",
    "linear_probe",
    "published",
)  # methods whose training has no seed


def answers(best: dict[str, Any], claims: list[Comparison], frame: pl.DataFrame, margin: float) -> list[str]:
    """Return one line for each larger reference, the largest first, and one for the best expert.

    Args:
        best: the chosen merge's row of the leaderboard.
        claims: its own.
        frame: the task's leaderboard.
        margin: how much worse still counts as not worse.
    """
    larger = larger_references(claims, frame)
    lines = [_answer(best, c, frame, margin) for c in larger]
    if not larger:
        lines = ["- This experiment has no larger model to compare with."]
    return lines + [_answer(best, c, frame, margin) for c in claims if c.kind == "expert"]


def larger_references(claims: list[Comparison], frame: pl.DataFrame) -> list[Comparison]:
    """Return claims against references that cost more than the merge, the most expensive first, without the router."""
    larger = [c for c in claims if c.kind == "reference" and c.cost_ratio is not None and c.cost_ratio < 1]
    larger = [c for c in larger if row(frame, c.against)["method"] != "router"]
    return sorted(larger, key=lambda c: c.cost_ratio or 0)


def _answer(best: dict[str, Any], claim: Comparison, frame: pl.DataFrame, margin: float) -> str:
    other, column = row(frame, claim.against), f"test_{claim.metric}"
    what = f"the best expert, {claim.against}" if claim.kind == "expert" else claim.against
    cost = claim_sentences.at_cost(claim.cost_ratio, claim_sentences.UNITS.get(str(leaderboard.price(frame)), ""))
    return (
        f"- **Replace {what}? {claim.answer}.** {best[column]:.3f} against {other[column]:.3f}:"
        f" {claim_sentences.difference(claim)}{cost}. {meaning(claim.holds, claim.low, claim.high, f'{margin:g}')}"
    )


def about(best: dict[str, Any], claims: list[Comparison], frame: pl.DataFrame) -> list[str]:
    """Say whether the answers are about the recipe or about one training, and what is open."""
    if best["replicates"] == 1:
        seeds = f"The merge's own draws are covered, by {best['runs']} seeds."
        return [*ONCE, *([seeds] if best["runs"] > 1 else [])]
    alone = [c.against for c in claims if trained_once(row(frame, c.against))]
    lines = [
        f"Claims are about the recipe: everything beneath it was trained {best['replicates']} times with other seeds, and intervals"
        " and tests cover reviews and trainings."
    ]
    if alone:
        which = "this very model" if len(alone) == 1 else "these very models"
        lines.append(
            f"Trained once, so that claims against {'it' if len(alone) == 1 else 'them'} are about {which}: {', '.join(alone)}."
        )
    return lines


def said_before(line: str, earlier: list[str]) -> bool:
    """Tell whether a verdict gave the same scope of claims for an earlier task; all other lines may occur again."""
    return line.startswith(("Claims are about ", ONCE[1])) and line in earlier


def trained_once(other: dict[str, Any]) -> bool:
    """Whether a rival was trained once, and another training could give another model."""
    return other["runs"] == 1 and other["method"] not in ALWAYS_THE_SAME and other["kind"] != "base"


def row(frame: pl.DataFrame, candidate: str) -> dict[str, Any]:
    """Return a candidate's row of the leaderboard."""
    return frame.row(by_predicate=pl.col("candidate") == candidate, named=True)
