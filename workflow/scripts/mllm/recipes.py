"""Merge entries of an experiment file, and the recipes that their grids expand to.

Names and defaults are mergekit's. A parameter that is a list spans the grid: one recipe per point.
The ranges are stricter than mergekit's, which lets values outside them through silently.
"""

import hashlib
import itertools
import json
import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler, PlainValidator, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

T = TypeVar("T")


class Strict(BaseModel):
    """A part of the experiment file: no unknown key, no silent conversion of types, no NaN."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class _ScalarOrList:
    """Accept one value or a list of values; the JSON schema says so too."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        array = handler(core)
        return {"anyOf": [array["items"], array]}


Axis = Annotated[
    list[T], Field(min_length=1), BeforeValidator(lambda v: v if isinstance(v, list) else [v]), _ScalarOrList
]
Fraction = Annotated[float, Field(gt=0, le=1)]
Interpolation = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


def _weight(value: Any) -> float | dict[str, float]:
    numbers = list(value.values()) if isinstance(value, dict) and value else [value]
    if not all(isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in numbers):
        raise ValueError("expected a finite number, or a map of member: finite number")
    return {str(k): float(v) for k, v in sorted(value.items())} if isinstance(value, dict) else float(value)


Weight = Annotated[
    float | dict[str, float],
    PlainValidator(_weight),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "object", "additionalProperties": {"type": "number"}}]}),
]


class MergeEntry(Strict):
    """What all merge methods have in common."""

    members: Annotated[list[str], Field(min_length=1)]
    """Experts to merge; `shard-*` stands for all whose names match."""

    uses_base: ClassVar[bool] = True
    random: ClassVar[bool] = False
    exactly: ClassVar[int | None] = None

    @classmethod
    def axes(cls) -> list[str]:
        """The parameters of the method, in the order in which the grid is spanned."""
        return [name for name in cls.model_fields if name not in ("method", "members")]


class Linear(MergeEntry):
    """Weighted average of the members (Wortsman et al. 2022, arXiv 2203.05482)."""

    method: Literal["linear"]
    weight: Axis[Weight] = [1.0]
    """One weight for all members, or a map member: weight; they are normalised to sum 1."""

    uses_base: ClassVar[bool] = False


class Slerp(MergeEntry):
    """Spherical interpolation between exactly two members, tensor by tensor."""

    method: Literal["slerp"]
    t: Axis[Interpolation]
    """0 is the first member, 1 the second."""

    uses_base: ClassVar[bool] = False
    exactly: ClassVar[int | None] = 2


class TaskArithmetic(MergeEntry):
    """Base plus the weighted sum of the members' task vectors (Ilharco et al. 2023, arXiv 2212.04089)."""

    method: Literal["task_arithmetic"]
    weight: Axis[Weight] = [1.0]
    """Factor of each task vector: one number, or a map member: weight."""
    lambda_: Axis[float] = Field([1.0], alias="lambda")
    """Factor of the summed task vector."""
    normalize: Axis[bool] = [False]
    """Divide by the sum of the weights."""


class Ties(MergeEntry):
    """Trim, elect sign and merge (Yadav et al. 2023, arXiv 2306.01708), trimmed per tensor as mergekit does."""

    method: Literal["ties"]
    density: Axis[Fraction]
    """Fraction of each task vector's entries that is kept."""
    weight: Axis[Weight] = [1.0]
    """Factor of each task vector: one number, or a map member: weight. Equal weights cancel while normalize is true."""
    lambda_: Axis[float] = Field([1.0], alias="lambda")
    """Factor of the merged task vector."""
    normalize: Axis[bool] = [True]
    """Divide by the sum of the agreeing members' weights."""


class Dare(MergeEntry):
    """Drop and rescale (Yu et al. 2024, arXiv 2311.03099), rescaled to the same L1 norm as mergekit does."""

    density: Axis[Fraction]
    """Probability of keeping an entry of a task vector."""
    weight: Axis[Weight] = [1.0]
    """Factor of each task vector: one number, or a map member: weight."""
    lambda_: Axis[float] = Field([1.0], alias="lambda")
    """Factor of the merged task vector."""
    normalize: Axis[bool] = [False]
    """Divide by the sum of the weights."""
    rescale: Axis[bool] = [True]
    """Rescale what is kept to the L1 norm of the whole."""
    seed: Axis[Seed] | None = None
    """Seeds of the random masks (default: the experiment's seed)."""

    random: ClassVar[bool] = True


class DareLinear(Dare):
    """DARE's sparse task vectors, summed."""

    method: Literal["dare_linear"]


class DareTies(Dare):
    """DARE's sparse task vectors under TIES' sign election."""

    method: Literal["dare_ties"]


METHODS: dict[str, type[MergeEntry]] = {
    m.model_fields["method"].annotation.__args__[0]: m  # type: ignore[union-attr]
    for m in (Linear, Slerp, TaskArithmetic, Ties, DareLinear, DareTies)
}
AnyMerge = Annotated[Linear | Slerp | TaskArithmetic | Ties | DareLinear | DareTies, Field(discriminator="method")]


@dataclass(frozen=True)
class Recipe:
    """What to merge and how, in canonical form: equal recipes are equal objects with equal names."""

    method: str
    members: tuple[str, ...]
    parameters: dict[str, Any]
    base: str | None

    def canonical(self) -> dict[str, Any]:
        """Plain JSON values that say all that determines the merge."""
        return {"method": self.method, "members": list(self.members), "parameters": self.parameters, "base": self.base}

    def name(self) -> str:
        """A readable name that depends on this recipe alone, so that no other grid point ever renames it.

        It shows required parameters and those that differ from the method's defaults; the hash of
        the whole recipe makes it unique.
        """
        digest = hashlib.sha256(json.dumps(self.canonical(), sort_keys=True).encode()).hexdigest()
        words = [f"{k}_per_member" if isinstance(v, dict) else f"{k}{_short(v)}" for k, v in self.telling().items()]
        return "-".join([self.method, *words, digest[:10]])

    def telling(self) -> dict[str, Any]:
        """The parameters that need saying: required ones, seeds, and those that differ from the method's defaults."""
        fields = METHODS[self.method].model_fields
        return {
            name: value
            for name, value in self.parameters.items()
            if name == "seed" or (field := fields[_attribute(name)]).is_required() or [value] != field.default
        }


def expand(entry: MergeEntry, members: list[str], default_seed: int, base: str = "base") -> list[Recipe]:
    """All points of one merge entry's grid.

    Members are put into canonical (sorted) order, since the order changes DARE's masks under one
    seed; for SLERP the order has a meaning and is kept.
    """
    ordered = tuple(members if isinstance(entry, Slerp) else sorted(members))
    names = entry.axes()
    values = [getattr(entry, name) for name in names]
    values = [[default_seed] if v is None else v for v in values]
    public = [name.rstrip("_") for name in names]
    return [
        Recipe(
            method=entry.method,  # type: ignore[attr-defined]
            members=ordered,
            parameters=dict(zip(public, point, strict=True)),
            base=base if entry.uses_base else None,
        )
        for point in itertools.product(*values)
    ]


def weight_errors(method: str, weight: Any, members: list[str]) -> list[str]:
    """What is wrong with one weight (a number or a map) for these members."""
    if isinstance(weight, bool) or not isinstance(weight, int | float | dict):
        return []
    if isinstance(weight, dict):
        unknown = [m for m in weight if m not in members]
        missing = [m for m in members if m not in weight]
        if unknown:
            return [f"names {', '.join(map(repr, unknown))}, not among the members {', '.join(members)}"]
        if missing:
            return [f"gives no weight for {', '.join(missing)}; a map names every member"]
        numbers = [v for v in weight.values() if isinstance(v, int | float)]
    else:
        numbers = [weight] * len(members)
    if method == "linear" and math.isclose(sum(numbers), 0, abs_tol=1e-12):
        return ["weights sum to 0, and linear divides by their sum (mergekit would write non-finite weights)"]
    return []


def _attribute(parameter: str) -> str:
    return "lambda_" if parameter == "lambda" else parameter


def _short(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
