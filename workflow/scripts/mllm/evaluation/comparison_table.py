"""Define the rows of ``comparisons.csv``: one candidate against another on the same test reviews."""

from dataclasses import dataclass, fields
from typing import get_args

import polars as pl

ANSWERS = {"better": "Yes", "no worse": "Yes", "worse": "No", "behind": "Not shown", "undecided": "Not shown"}
"""The strongest statement that holds after correction -> the answer: may the candidate replace the other?"""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Hold one pair. Tests use test reviews; *after correction* means within the task's family of claims."""

    task: str
    candidate: str
    """A merge or a blend."""
    against: str
    """The candidate's rival."""
    kind: str
    """The rival's: expert, blend, reference or base."""
    claim: bool
    """Whether the experiment is about this comparison; all others are exploration."""
    family: str | None
    """Claims: primary (the chosen merge against the large reference) or secondary, each tested at 5 %."""
    metric: str
    """As ``compare.metric`` of the experiment says."""
    runs: int
    """Pairs of runs with seeds of their own; 1: it says nothing about other trainings."""
    deviation: float | None
    """Standard deviation between these pairs' differences; None with one pair."""
    difference: float
    """On test, the mean over pairs of runs. Positive: the candidate is better, also for metrics where smaller is better."""
    low: float
    """95 % interval over texts (accuracy: Tango's score interval; else a paired bootstrap); with several runs also over trainings."""
    high: float
    verdict: str
    """The strongest statement that holds without correction: better, no worse, worse (by more than the margin), behind, undecided."""
    holds: str | None
    """Claims: the strongest statement that holds after correction within the task's family."""
    answer: str | None
    """Claims: may the candidate replace the other? Yes, No or Not shown, by what holds."""
    p: float
    """P-value of no difference, two-sided."""
    p_holm: float | None
    """The same, corrected within the family."""
    p_bh: float
    """The same, corrected over the whole table for the false discovery rate."""
    p_not_worse: float
    """P-value of being worse by the margin or more, one-sided."""
    p_not_worse_holm: float | None
    """The same, corrected within the family."""
    p_worse: float
    """P-value of being worse by no more than the margin, one-sided."""
    p_worse_holm: float | None
    """The same, corrected within the family."""
    p_equivalent: float
    """P-value of a distance of the margin or more, by two one-sided tests."""
    p_equivalent_holm: float | None
    """The same, corrected within the family; only where the experiment asks for equivalence."""
    detectable: float | None
    """The smallest true difference that a test alone finds with a probability of 80 %."""
    detectable_holm: float | None
    """The same for the family's hardest place, its first claim."""
    support: int
    """Test texts of the rarest class; below 20, macro averages and their tests are unreliable."""
    calibrated_difference: float
    """The difference after both are calibrated on validation."""
    calibrated_low: float
    """95 % interval."""
    calibrated_high: float
    tuned_difference: float | None
    """The difference with class offsets fitted on validation for the metric; None where the metric is not of decisions."""
    tuned_low: float | None
    """95 % interval, by the delta method."""
    tuned_high: float | None
    accuracy_difference: float
    """Difference of the shares of texts labelled correctly; copies with different labels count with their mean."""
    accuracy_low: float
    """Tango's 95 % interval."""
    accuracy_high: float
    nll_difference: float
    """Difference of the negative log-likelihood per text, positive where the candidate's is smaller."""
    nll_low: float
    """95 % interval."""
    nll_high: float
    only_candidate_right: int
    """Texts on which only the candidate is right (copies: more often right)."""
    only_other_right: int
    """Texts on which only the other is right."""
    p_mcnemar: float
    """P-value of McNemar's test of accuracy, mid-p."""
    p_mcnemar_exact: float
    """The same, exact."""
    p_mcnemar_holm: float | None
    """The mid-p, corrected within the family."""
    cost_ratio: float | None
    """The candidate's cost over the other's: floating-point operations per review if known for all, else parameters."""


SCHEMA = {
    f.name: next(kind for kind in get_args(f.type) or (f.type,) if kind is not type(None)) for f in fields(Comparison)
}
"""Column -> str, bool, int or float."""


def rows(table: pl.DataFrame) -> list[Comparison]:
    """Return the rows of a table of comparisons, in order."""
    return [Comparison(**row) for row in table.iter_rows(named=True)]


def rule(margin: float) -> str:
    """Say what the answers mean, in one line."""
    return (
        f"Yes: not worse by more than the margin of {margin:g}. No: worse by more than the margin. Not shown: neither is shown, at 5 % after"
        " correction for the number of claims."
    )


def meaning(holds: str | None, low: float, high: float, margin: str) -> str:
    """Say in one short sentence about a merge what its answer means; docs/scores.md lists the cases.

    Args:
        holds: the strongest statement after correction.
        low: lower end of the difference's interval, positive where the merge is better.
        high: upper end.
        margin: with its unit.
    """
    if holds == "better":
        return "It is better."
    if holds == "worse":
        return f"It is worse by more than the margin of {margin}."
    if holds == "no worse":
        if high < 0:
            return f"It scored lower, by less than the margin of {margin}."
        return f"It is not worse by more than the margin of {margin}."
    if holds == "behind" or high < 0:
        return f"It scored lower, possibly by less than the margin of {margin}."
    return "It scored higher, possibly by chance." if low > 0 else "The difference is not clear in either direction."
