"""Rows of ``comparisons.csv``: one candidate against another on the same test reviews."""

from dataclasses import dataclass, fields
from typing import get_args

import polars as pl

ANSWERS = {"better": "Yes", "no worse": "Yes", "worse": "No"}
"""The strongest statement that holds -> the answer; of the others nothing is shown."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One pair. Probabilities are of tests on test; *after correction* means within the task's family of claims."""

    task: str
    candidate: str
    """A merge or a blend."""
    against: str
    """What it is compared with."""
    kind: str
    """expert, blend, reference or base: of what it is compared with."""
    claim: bool
    """One of the comparisons that the experiment is about."""
    family: str | None
    """Claims: primary (the chosen merge against the large reference) or secondary, each tested at 5 %."""
    metric: str
    """As ``compare.metric`` of the experiment says."""
    runs: int
    """Pairs of runs with seeds of their own; 1: nothing is said about other trainings."""
    deviation: float | None
    """Standard deviation between these pairs' differences; none with one."""
    difference: float
    """On test; of several pairs of runs their mean; positive: the candidate is better, also where smaller values are."""
    low: float
    """95 % interval: over texts (accuracy: Tango's score interval; else a paired bootstrap), of several runs over both."""
    high: float
    verdict: str
    """The strongest statement that holds taken alone: better, no worse, worse (by more than the margin), behind, undecided."""
    holds: str | None
    """Claims: the strongest statement that holds after correction within the task's family."""
    p: float
    """Of no difference, two-sided."""
    p_holm: float | None
    """The same, corrected within the family."""
    p_bh: float
    """The same over the whole table, false discovery rate."""
    p_not_worse: float
    """Of being worse by the margin or more, one-sided."""
    p_not_worse_holm: float | None
    """The same, corrected within the family."""
    p_worse: float
    """Of being worse by no more than the margin, one-sided."""
    p_worse_holm: float | None
    """The same, corrected within the family."""
    p_equivalent: float
    """Of being apart by the margin or more, two one-sided tests."""
    p_equivalent_holm: float | None
    """The same, corrected within the family; where the experiment asks for equivalence."""
    detectable: float | None
    """The smallest difference found with a probability of 80 %, tested alone."""
    detectable_holm: float | None
    """The same as the first of the family's claims to be found."""
    support: int
    """Test texts of the rarest class; below 20, macro averages and their tests are unreliable."""
    calibrated_difference: float
    """The difference once both are calibrated on validation."""
    calibrated_low: float
    """95 % interval."""
    calibrated_high: float
    tuned_difference: float | None
    """Of decisions with class offsets fitted on validation for the metric; none where the metric is of no decisions."""
    tuned_low: float | None
    """95 % interval, by the delta method."""
    tuned_high: float | None
    accuracy_difference: float
    """Shares of texts labelled rightly; of copies with different labels, their mean."""
    accuracy_low: float
    """Tango's 95 % interval."""
    accuracy_high: float
    nll_difference: float
    """Of the negative log-likelihood per text, positive where the candidate's is smaller."""
    nll_low: float
    """95 % interval."""
    nll_high: float
    only_candidate_right: int
    """Texts on which the candidate alone is right (of copies: more often right)."""
    only_other_right: int
    """Texts on which the other alone is right."""
    p_mcnemar: float
    """McNemar's test of accuracy, mid-p."""
    p_mcnemar_exact: float
    """The same, exact."""
    p_mcnemar_holm: float | None
    """The mid-p, corrected within the family."""
    cost_ratio: float | None
    """The candidate's cost over the other's: floating-point operations, or else parameters."""

    @property
    def answer(self) -> str:
        """May the candidate replace the other? Yes, No or Not shown; of claims after correction, of others taken alone."""
        return ANSWERS.get(self.holds or self.verdict, "Not shown")


SCHEMA = {
    f.name: next(kind for kind in get_args(f.type) or (f.type,) if kind is not type(None)) for f in fields(Comparison)
}
"""Column -> str, bool, int or float."""


def rows(table: pl.DataFrame) -> list[Comparison]:
    """The rows of a table of comparisons, in order."""
    return [Comparison(**row) for row in table.iter_rows(named=True)]


def rule(margin: float) -> str:
    """What the answers mean, in one line."""
    return (
        f"Yes: not worse by more than the margin of {margin:g}. No: worse by more than the margin. Not shown: neither is shown, at 5 % after"
        " correction for the number of claims."
    )
