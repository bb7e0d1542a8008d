"""Types of an experiment file's values: strict models, axes of a grid, numbers that vary over members and layers."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from mllm.experiment.layered import is_layered

T = TypeVar("T")
Value = str | int | float  # a value in a column
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"  # a name that becomes a file's or folder's
LONGEST = 100  # characters of a name: a file name may have 255 bytes, and joins two names and an ending


class Strict(BaseModel):
    """A part of the experiment file: no unknown key, no silent conversion of types, no NaN."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class _ScalarOrList:
    """Accept one value or a list of values, in the model and in the JSON schema."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        array = handler(core)
        return {"anyOf": [array["items"], array]}


Axis = Annotated[
    list[T], Field(min_length=1), BeforeValidator(lambda v: v if isinstance(v, list) else [v]), _ScalarOrList
]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


@dataclass(frozen=True)
class Range:
    """A number in a range, or one that changes with depth: ``{layers: [first, …, last], rest: …}``.

    ``layers`` are spread evenly over the model's layers with interpolation, as mergekit's gradients are. ``rest`` is
    for all weights outside of layers (embeddings, final norm, head); mergekit would silently give these the first
    value.
    With ``members``, a map of member to any of these is also allowed.
    """

    low: float | None = None
    above: float | None = None
    high: float | None = None
    members: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        bounds = {"minimum": self.low, "exclusiveMinimum": self.above, "maximum": self.high}
        number: JsonSchemaValue = {"type": "number", **{k: v for k, v in bounds.items() if v is not None}}
        layers: JsonSchemaValue = {
            "type": "object",
            "properties": {"layers": {"type": "array", "items": number, "minItems": 2}, "rest": number},
            "required": ["layers", "rest"],
            "additionalProperties": False,
        }
        options = [number, layers]
        if self.members:
            options.append({"type": "object", "additionalProperties": {"anyOf": [number, layers]}, "minProperties": 1})
        return {"anyOf": options}

    def check(self, value: Any) -> float | dict[str, Any]:
        """Return the value in its simplest form: numbers as floats, a constant map or list as one number.

        Raises:
            ValueError: the value has none of the forms above; the message says what was expected.
        """
        if self.members and isinstance(value, dict) and value and not is_layered(value):
            found = {str(k): self.layered(v) for k, v in sorted(value.items(), key=str)}
            return found
        return self.layered(value)

    def layered(self, value: Any) -> float | dict[str, Any]:
        if not is_layered(value):
            return self.number(value)
        if set(value) != {"layers", "rest"} or not isinstance(value["layers"], list) or len(value["layers"]) < 2:
            raise ValueError(
                "expected {layers: [first, …, last], rest: …} with both keys and at least 2 values for the layers"
            )
        layers, rest = [self.number(v) for v in value["layers"]], self.number(value["rest"])
        return rest if all(v == rest for v in layers) else {"layers": layers, "rest": rest}

    def number(self, value: Any) -> float:
        good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        lower = self.low is None or (good and value >= self.low)
        lower = lower and (self.above is None or (good and value > self.above))
        if good and lower and (self.high is None or value <= self.high):
            return float(value)
        hint = " (a fraction, not a percentage)" if good and self.high == 1 and value > 1 else ""
        map_ = ", or a map of member: number" if self.members else ""
        raise ValueError(f"expected a finite number{self._bounds()}{map_}{hint}")

    def _bounds(self) -> str:
        words = (("greater than or equal to", self.low), ("greater than", self.above))
        parts = [f"{word} {bound:g}" for word, bound in words if bound is not None]
        parts += [f"less than or equal to {self.high:g}"] if self.high is not None else []
        return " " + " and ".join(parts) if parts else ""


Number = Annotated[Any, Range()]
Positive = Annotated[Any, Range(low=0)]
Interpolation = Annotated[Any, Range(low=0, high=1)]
Fraction = Annotated[Any, Range(above=0, high=1)]
Weight = Annotated[Any, Range(members=True)]
Amount = Annotated[Any, Range(low=0, members=True)]
Density = Annotated[Any, Range(above=0, high=1, members=True)]
Share = Annotated[Any, Range(low=0, high=1, members=True)]
