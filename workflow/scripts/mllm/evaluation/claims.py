"""Make claims about differences: better, no worse, behind or worse, with a family-wise error of at most 5 %.

Each claim is about one true difference. Two nested statements speak for the candidate (no worse than the margin, then better),
and two against it (behind, then worse than the margin). Each direction is tested at 2.5 %, the weaker statement before the
stronger one.
"""

from dataclasses import dataclass

import numpy as np

from mllm.core.arrays import Array
from mllm.evaluation import significance

LEVEL = 0.05


@dataclass(frozen=True)
class Tests:
    """Hold the one-sided p-values of one difference, positive where the candidate is better."""

    better: float
    """Null: at or below 0."""
    not_worse: float
    """Null: at or below −margin."""
    behind: float
    """Null: at or above 0."""
    worse: float
    """Null: at or above −margin."""
    not_better: float = 1.0
    """Null: at or above margin."""

    @property
    def two_sided(self) -> float:
        """P-value of no difference."""
        return min(1.0, 2 * min(self.better, self.behind))

    @property
    def equivalent(self) -> float:
        """P-value of a distance of the margin or more: two one-sided tests (Schuirmann 1987)."""
        return max(self.not_worse, self.not_better)


def strongest(better: float, not_worse: float, behind: float, worse: float, level: float = LEVEL) -> str:
    """Return the strongest statement whose one-sided p-value is at most half the level."""
    limit = level / 2
    if better <= limit:
        return "better"
    if not_worse <= limit:
        return "no worse"
    if worse <= limit:
        return "worse"
    return "behind" if behind <= limit else "undecided"


def adjusted(weak: Array, strong: Array) -> tuple[Array, Array]:
    """Adjust p-values of nested statements, over all claims of a family.

    This is the closed test with Bonferroni's local tests. The weak statement's null implies the strong one's, so a claim counts
    once in each intersection. Strong statements get Holm's correction. A weak one gets its place in Holm's order among the other
    claims' strong ones.

    Args:
        weak: (claims,) p-values of the weaker statements.
        strong: (claims,) p-values of the stronger ones, none below the weaker one's.

    Returns:
        Both, adjusted: the probability of any false statement among all of them is at most the level.
    """
    weaker = np.empty(len(weak))
    for i, p in enumerate(weak):
        mixed = strong.astype(float)
        mixed[i] = p
        weaker[i] = significance.holm(mixed)[i]
    return weaker, significance.holm(strong.astype(float))


def detectable(standard_error: float, claims: int = 1, power: float = 0.8) -> float:
    """Return the true difference that a test finds with this power, alone or as the first of several claims (Bonferroni's share)."""
    return significance.detectable_difference(standard_error, power, LEVEL / max(claims, 1))
