"""What is claimed of a difference: behind or worse, no worse or better, with family-wise error held at 5 %.

Each claim is about one true difference, in whose favour two nested statements can be made (no worse than the margin, then
better), and two against it (behind, then worse than the margin). Both directions are tested at 2.5 %, the stronger statement
never before the weaker.
"""

from dataclasses import dataclass

import numpy as np

from mllm.core.arrays import Array
from mllm.evaluation import significance

LEVEL = 0.05


@dataclass(frozen=True)
class Tests:
    """One-sided p-values of one difference, positive where the candidate is better."""

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
        """Of no difference."""
        return min(1.0, 2 * min(self.better, self.behind))

    @property
    def equivalent(self) -> float:
        """Of being apart by the margin or more: two one-sided tests (Schuirmann 1987)."""
        return max(self.not_worse, self.not_better)


def strongest(better: float, not_worse: float, behind: float, worse: float, level: float = LEVEL) -> str:
    """The strongest statement of which the one-sided p-value is at most half the level."""
    limit = level / 2
    if better <= limit:
        return "better"
    if not_worse <= limit:
        return "no worse"
    if worse <= limit:
        return "worse"
    return "behind" if behind <= limit else "undecided"


def adjusted(weak: Array, strong: Array) -> tuple[Array, Array]:
    """Adjusted p-values of nested statements, over all claims of a family.

    The closed test with Bonferroni's local tests: since the weak statement's null implies the strong one's, a claim counts once
    in each intersection. The strong statements get Holm's correction; a weak one gets Holm's place among the others' strong ones.

    Args:
        weak: (claims,) p-values of the weaker statements.
        strong: (claims,) p-values of the stronger ones, none below the weaker one's.

    Returns:
        Both, adjusted: the chance of any false statement among all of them is at most the level.
    """
    weaker = np.empty(len(weak))
    for i, p in enumerate(weak):
        mixed = strong.astype(float)
        mixed[i] = p
        weaker[i] = significance.holm(mixed)[i]
    return weaker, significance.holm(strong.astype(float))


def detectable(standard_error: float, claims: int = 1, power: float = 0.8) -> float:
    """The true difference that is found with this power, tested alone or as the first of several claims (Bonferroni's share)."""
    return significance.detectable_difference(standard_error, power, LEVEL / max(claims, 1))
