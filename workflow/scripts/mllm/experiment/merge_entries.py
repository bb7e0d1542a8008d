# ruff: noqa: RUF012 (pydantic copies the defaults that are lists)
"""Merge entries of an experiment file: one pydantic model for each method, with mergekit's names and defaults.

A parameter that is a list spans the grid. The ranges are stricter than mergekit's, which silently accepts values
outside them. A test compares the table with the installed mergekit's registry.
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
    """Spherical interpolation of two members by their weights, of complete tensors or row by row."""

    method: Literal["nuslerp"]
    weight: Axis[Amount] = [1.0]
    """A map member: weight; the second member's share of the sum is SLERP's t."""
    nuslerp_flatten: Axis[bool] = [True]
    """Interpolate complete tensors; false: each row separately."""
    nuslerp_row_wise: Axis[bool] = [False]
    """If tensors are not flattened: interpolate along the first dimension instead of the last."""
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
    """Small number that is added to norms."""
    use_base: Axis[bool] = [False]
    """Interpolate task vectors instead of weights."""

    base = "optional"


class Karcher(MergeEntry):
    """Karcher mean of the members' directions, with equal weights (arXiv 2603.04972)."""

    method: Literal["karcher"]
    max_iter: Axis[Annotated[int, Field(ge=1)]] = [10]
    """Largest number of iterations."""
    tol: Axis[Annotated[float, Field(gt=0, lt=1)]] = [1e-5]
    """Step size below which the iteration ends."""

    base = "refused"


class ModelStock(MergeEntry):
    """A point between base and members' mean, by the angles between members (Jang et al. 2024, arXiv 2403.19522)."""

    method: Literal["model_stock"]
    filter_wise: Axis[bool] = [False]
    """Take the angles of each row instead of each tensor."""
    convention: Axis[Convention] = ["mergekit"]
    """mergekit replaces any product of two task vectors' norms below 1e-6 by 1e-6, which shrinks small updates; paper
    does not."""


class Sce(MergeEntry):
    """Select by variance, weigh by energy, erase the minority's signs (Wan et al. 2024, arXiv 2408.07990)."""

    method: Literal["sce"]
    select_topk: Axis[Fraction] = [1.0]
    """Fraction of the entries that is kept: those with the highest variance over the members."""

    unused = frozenset({"int8_mask"})


class Changes(MergeEntry):
    """A change by one member only is kept unscaled; changes by several members are averaged (arXiv 2601.13572)."""

    epsilon: Axis[Positive] = [1e-5]
    """Smallest change that counts."""


class Ram(Changes):
    """Reinforced agent merging."""

    method: Literal["ram"]


class RamplusTl(Changes):
    """RAM, with lone changes amplified by the share of a member's change that others share, tensor by tensor."""

    method: Literal["ramplus_tl"]
    r: Axis[Positive] = [0.1]
    """Amplification of lone changes."""
    alpha: Axis[Positive] = [0.2]
    """Bound of the ratio of shared to lone changes."""


class Nearswap(MergeEntry):
    """The first member, with the second's entries where the two are close."""

    method: Literal["nearswap"]
    t: Axis[Positive]
    """Distance up to which the second member's entry is taken completely; 0 gives the first member."""

    base = "first"
    count = (2, 2)


class ArceeFusion(MergeEntry):
    """The first member, with the second's entries where the difference is most informative."""

    method: Literal["arcee_fusion"]
    seed: Axis[Seed] | None = None
    """Seeds of the sample of entries that is drawn from tensors with more than a million."""

    base = "first"
    count = (2, 2)
    random = True


class Passthrough(MergeEntry):
    """One member, unchanged or scaled."""

    method: Literal["passthrough"]
    scale: Axis[Number] = [1.0]
    """Factor of all weights."""

    base = "refused"
    count = (1, 1)


class Moe(MergeEntry):
    """Mixture of experts: every member's feed-forward blocks behind a router; all other weights are averaged.

    mergekit-moe makes it, for LLaMA-, Mistral- and Qwen-like members. The average of the weights outside feed-forward
    blocks follows Branch-Train-MiX (Sukhbaatar et al. 2024, arXiv 2403.07816).
    """

    method: Literal["moe"]
    gate_mode: Axis[Literal["hidden", "hidden_avg", "hidden_last", "cheap_embed", "random", "uniform_random"]] = ["hidden"]  # fmt: skip
    """Source of the router's weights: hidden states or embeddings of each member's train reviews, or random draws."""
    experts_per_token: Axis[Annotated[int, Field(ge=1)]] = [2]
    """Number of members that process each token."""
    prompts: Axis[Annotated[int, Field(ge=1)]] = [16]
    """Number of each member's train reviews that make its part of the router."""
    seed: Axis[Seed] | None = None
    """Seeds of the drawn reviews and router weights."""

    in_mergekit = False  # mergekit-moe is a separate command
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
    """Return the entry of a recipe's method; ``ties_paper`` is ``ties`` by the paper's convention."""
    return METHODS[method.removesuffix("_paper")]


def in_mergekit(method: str) -> bool:
    """Return whether mergekit-yaml makes the same weights from a recipe, bit for bit."""
    return not method.endswith("_paper") and entry_of(method).in_mergekit
