# ruff: noqa: RUF012 (pydantic copies the defaults that are lists)
"""Merge entries of an experiment file: one model for each method, with mergekit's names and defaults.

A parameter that is a list spans the grid. The ranges are stricter than mergekit's, which lets values outside them
through silently. A test holds the table against the installed mergekit's registry.
"""

import functools
import operator
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from pydantic import Field

from mllm.experiment.task_vector_entries import (  # fmt: skip
    Breadcrumbs,
    BreadcrumbsTies,
    Convention,
    DareLinear,
    DareTies,
    Della,
    DellaLinear,
    MergeEntry,
    TaskArithmetic,
    Ties,
)
from mllm.experiment.value_types import Amount, Axis, Fraction, Interpolation, Number, Positive, Seed, Weight


class Linear(MergeEntry):
    """Weighted average of the members (Wortsman et al. 2022, arXiv 2203.05482)."""

    method: Literal["linear"]
    weight: Axis[Weight] = [1.0]
    """One weight for all members, or a map member: weight."""
    normalize: Axis[bool] = [True]
    """Divide by the sum of the weights."""

    base = "refused"


class Slerp(MergeEntry):
    """Spherical interpolation between exactly two members, tensor by tensor."""

    method: Literal["slerp"]
    t: Axis[Interpolation]
    """0 is the first member, 1 the second."""

    base = "first"
    count = (2, 2)


class Nuslerp(MergeEntry):
    """Spherical interpolation of two members by their weights, of whole tensors or row by row."""

    method: Literal["nuslerp"]
    weight: Axis[Amount] = [1.0]
    """A map member: weight; the second member's share of the sum is SLERP's t."""
    nuslerp_flatten: Axis[bool] = [True]
    """Interpolate whole tensors; false: each row of its own."""
    nuslerp_row_wise: Axis[bool] = [False]
    """Where tensors are not flattened: along the first dimension instead of the last."""
    use_base: Axis[bool] = [False]
    """Interpolate task vectors instead of weights."""

    base = "optional"
    count = (2, 2)


class Multislerp(MergeEntry):
    """Barycentric interpolation of any number of members on a hypersphere."""

    method: Literal["multislerp"]
    weight: Axis[Weight] = [1.0]
    """One weight for all members, or a map member: weight."""
    normalize_weights: Axis[bool] = [True]
    """Divide by the sum of the weights."""
    eps: Axis[Annotated[float, Field(gt=0, lt=1e-3)]] = [1e-8]
    """Added to norms."""
    use_base: Axis[bool] = [False]
    """Interpolate task vectors instead of weights."""

    base = "optional"


class Karcher(MergeEntry):
    """Karcher mean of the members' directions, equal weights (arXiv 2603.04972)."""

    method: Literal["karcher"]
    max_iter: Axis[Annotated[int, Field(ge=1)]] = [10]
    """Iterations at most."""
    tol: Axis[Annotated[float, Field(gt=0, lt=1)]] = [1e-5]
    """Step below which the iteration ends."""

    base = "refused"


class ModelStock(MergeEntry):
    """As far from the base to the members' mean as their angles warrant (Jang et al. 2024, arXiv 2403.19522)."""

    method: Literal["model_stock"]
    filter_wise: Axis[bool] = [False]
    """Angles of each row instead of each tensor."""
    convention: Axis[Convention] = ["mergekit"]
    """mergekit takes 1e-6 for any smaller product of two task vectors' norms, which shrinks small updates; paper does not."""


class Sce(MergeEntry):
    """Select by variance, weigh by energy, erase the minority's signs (Wan et al. 2024, arXiv 2408.07990)."""

    method: Literal["sce"]
    select_topk: Axis[Fraction] = [1.0]
    """Fraction of the entries, those of the highest variance over the members, that is kept."""

    unused = frozenset({"int8_mask"})


class Changes(MergeEntry):
    """What one member alone changed is kept whole, what several changed is averaged (arXiv 2601.13572)."""

    epsilon: Axis[Positive] = [1e-5]
    """Smallest change that counts."""


class Ram(Changes):
    """Reinforced agent merging."""

    method: Literal["ram"]


class RamplusTl(Changes):
    """RAM, whose lone changes are amplified by how much of a member's change is shared, tensor by tensor."""

    method: Literal["ramplus_tl"]
    r: Axis[Positive] = [0.1]
    """Amplification of lone changes."""
    alpha: Axis[Positive] = [0.2]
    """Bound of the ratio of shared to lone changes."""


class Nearswap(MergeEntry):
    """The first member, with the second's entries where the two are near."""

    method: Literal["nearswap"]
    t: Axis[Positive]
    """Distance up to which the second member's entry is taken whole; 0 is the first member."""

    base = "first"
    count = (2, 2)


class ArceeFusion(MergeEntry):
    """The first member, with the second's entries where they differ most in what they say."""

    method: Literal["arcee_fusion"]
    seed: Axis[Seed] | None = None
    """Seeds of the sample of a tensor's entries, drawn where it has more than a million."""

    base = "first"
    count = (2, 2)
    random = True


class Passthrough(MergeEntry):
    """One member as it is, or scaled."""

    method: Literal["passthrough"]
    scale: Axis[Number] = [1.0]
    """Factor of all weights."""

    base = "refused"
    count = (1, 1)


class Moe(MergeEntry):
    """Mixture of experts: every member's feed-forward blocks behind a router, all else averaged.

    As mergekit-moe makes it, for LLaMA-, Mistral- and Qwen-like members; the average of what is not a feed-forward
    block is Branch-Train-MiX's (Sukhbaatar et al. 2024, arXiv 2403.07816).
    """

    method: Literal["moe"]
    gate_mode: Axis[Literal["hidden", "hidden_avg", "hidden_last", "cheap_embed", "random", "uniform_random"]] = ["hidden"]  # fmt: skip
    """How the router's weights are made: of the hidden states or embeddings of each member's train reviews, or drawn."""
    experts_per_token: Axis[Annotated[int, Field(ge=1)]] = [2]
    """Members that each token is sent to."""
    prompts: Axis[Annotated[int, Field(ge=1)]] = [16]
    """Train reviews of each member that make its part of the router."""
    seed: Axis[Seed] | None = None
    """Seeds of the drawn reviews and router weights."""

    in_mergekit = False  # mergekit-moe is a command of its own
    base = "refused"
    random = True


_ALL: tuple[type[MergeEntry], ...] = (
    Linear, Slerp, Nuslerp, Multislerp, Karcher, TaskArithmetic, Ties, DareLinear, DareTies, Della, DellaLinear,
    Breadcrumbs, BreadcrumbsTies, ModelStock, Sce, Ram, RamplusTl, Nearswap, ArceeFusion, Passthrough, Moe,
)  # fmt: skip
METHODS: dict[str, type[MergeEntry]] = {get_args(m.model_fields["method"].annotation)[0]: m for m in _ALL}

if TYPE_CHECKING:
    AnyMerge = MergeEntry
else:
    AnyMerge = Annotated[functools.reduce(operator.or_, _ALL), Field(discriminator="method")]


def entry_of(method: str) -> type[MergeEntry]:
    """The entry of a recipe's method; ``ties_paper`` is ``ties`` by the paper's convention."""
    return METHODS[method.removesuffix("_paper")]


def in_mergekit(method: str) -> bool:
    """Whether mergekit-yaml makes the same weights of a recipe, bit for bit."""
    return not method.endswith("_paper") and entry_of(method).in_mergekit
