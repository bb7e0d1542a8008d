# ruff: noqa: RUF012 (pydantic copies the defaults that are lists)
"""Merge entries whose methods combine task vectors (members minus base), thinned or not, with signs elected or not."""

from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from mllm.experiment.value_types import Axis, Density, Number, Seed, Share, Strict, Weight

Convention = Literal["mergekit", "paper"]
Names = Annotated[list[str], Field(min_length=1)]
Members = Annotated[
    Annotated[Names, Tag("names")] | Annotated[dict[str, Names], Tag("by task")],
    Discriminator(lambda value: "by task" if isinstance(value, dict) else "names"),
]


class MergeEntry(Strict):
    """Keys of all merge methods."""

    method: str
    members: Members
    """Experts to merge; `shard-*` means all experts whose names match. Experts of several tasks make one model for all
    of them; a map task: experts matches each task's own experts only."""
    out_dtype: Axis[Literal["float32", "bfloat16", "float16"]] = ["float32"]
    """Precision of the merged weights; the arithmetic is in float32."""

    base: ClassVar[Literal["needed", "refused", "optional", "first"]] = "needed"
    """Whether the experiment's base takes part; first: the first member is mergekit's base_model."""
    random: ClassVar[bool] = False
    in_mergekit: ClassVar[bool] = True
    """Whether the mergekit-yaml command has it."""
    count: ClassVar[tuple[int, int | None]] = (2, None)
    """Smallest and largest number of members."""
    unused: ClassVar[frozenset[str]] = frozenset()
    """mergekit's parameters that change no result of this method."""

    @classmethod
    def axes(cls) -> list[str]:
        """Return the parameters of the method, in the order in which the grid is spanned."""
        own = [n for n in cls.model_fields if n not in ("method", "members", "convention", "out_dtype")]
        return [*own, "out_dtype"]


class TaskVectors(MergeEntry):
    """The base plus a combination of task vectors: members minus base."""

    weight: Axis[Weight] = [1.0]
    """Factor of each task vector: one number, or a map member: weight; a task in the map means each of its members."""
    lambda_: Axis[Number] = Field([1.0], alias="lambda")
    """Factor of the combined task vector. A sum over several tasks without weight and lambda tries 0.1 to 1 in steps of
    0.1."""
    normalize: Axis[bool] = [False]
    """Divide by the sum of the (agreeing) members' weights."""

    unused = frozenset({"int8_mask"})


class TaskArithmetic(TaskVectors):
    """Base plus the weighted sum of the members' task vectors (Ilharco et al. 2023, arXiv 2212.04089)."""

    method: Literal["task_arithmetic"]

    unused = frozenset({"int8_mask", "density", "rescale"})


class Sparse(TaskVectors):
    """Task vectors with only a part of their entries kept."""

    density: Axis[Density]
    """Fraction of each task vector's entries that is kept: one number, or a map member: fraction."""
    rescale: Axis[bool] = [False]
    """Rescale the kept entries to the L1 norm of all entries."""


class Ties(Sparse):
    """Trim, elect sign and merge (Yadav et al. 2023, arXiv 2306.01708)."""

    method: Literal["ties"]
    normalize: Axis[bool] = [True]
    """Divide by the sum of the agreeing members' weights; equal weights cancel then."""
    convention: Axis[Convention] = ["mergekit"]
    """mergekit trims each tensor; paper trims the complete task vector by one threshold."""


class Middling(Sparse):
    """Task vectors without their largest and smallest entries (Davari and Belilovsky 2024, arXiv 2312.06795)."""

    gamma: Axis[Share] = [0.01]
    """Fraction of the largest entries that is removed; gamma and density sum to at most 1."""


class Breadcrumbs(Middling):
    """The middle entries of the task vectors, summed."""

    method: Literal["breadcrumbs"]


class BreadcrumbsTies(Middling):
    """The middle entries of the task vectors under TIES' sign election."""

    method: Literal["breadcrumbs_ties"]


class Masked(Sparse):
    """Task vectors thinned at random."""

    rescale: Axis[bool] = [True]
    """Rescale the kept entries to the L1 norm of all entries."""
    seed: Axis[Seed] | None = None
    """Seeds of the random masks (default: the experiment's seed)."""

    random = True


class Dare(Masked):
    """Drop and rescale (Yu et al. 2024, arXiv 2311.03099)."""

    convention: Axis[Convention] = ["mergekit"]
    """mergekit rescales each tensor to its L1 norm; paper divides by the density."""


class DareLinear(Dare):
    """DARE's sparse task vectors, summed."""

    method: Literal["dare_linear"]


class DareTies(Dare):
    """DARE's sparse task vectors under TIES' sign election."""

    method: Literal["dare_ties"]


class Ranked(Masked):
    """Task vectors that keep large entries with a higher probability (Deep et al. 2024, arXiv 2406.11617)."""

    epsilon: Axis[Share] = [0.15]
    """The probability rises from density - epsilon to density + epsilon, both between 0 and 1."""


class Della(Ranked):
    """DELLA's sparse task vectors under TIES' sign election."""

    method: Literal["della"]
    normalize: Axis[bool] = [True]
    """Divide by the sum of the agreeing members' weights; equal weights cancel then."""


class DellaLinear(Ranked):
    """DELLA's sparse task vectors, summed."""

    method: Literal["della_linear"]
