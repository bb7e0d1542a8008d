"""The recipes that merge entries expand to: canonical, named, and known to be the same where they are."""

import hashlib
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mllm.experiment.layered import is_layered
from mllm.experiment.merge_entries import entry_of
from mllm.experiment.task_vector_entries import MergeEntry


@dataclass(frozen=True)
class Recipe:
    """What to merge and how, in canonical form: equal recipes are equal objects with equal names."""

    method: str
    """As mergekit's registry names it; ``…_paper`` are ours, by the papers' conventions."""
    members: tuple[str, ...]
    parameters: dict[str, Any]
    base: str | None
    """What plays mergekit's base_model: the experts' base, or the first member, or none."""

    def canonical(self) -> dict[str, Any]:
        """Plain JSON values that say all that determines the merge."""
        return {"method": self.method, "members": list(self.members), "parameters": self.parameters, "base": self.base}

    def name(self) -> str:
        """A readable name that depends on this recipe alone, so that no other grid point ever renames it.

        It shows required parameters and those that differ from the method's defaults; the hash of
        the whole recipe makes it unique.
        """
        digest = hashlib.sha256(json.dumps(self.canonical(), sort_keys=True).encode()).hexdigest()
        words = [f"{k}{_short(v)}" for k, v in self.telling().items()]
        return "-".join([self.method, *words, digest[:10]])

    def telling(self) -> dict[str, Any]:
        """The parameters that need saying: required ones, seeds, and those that differ from the method's defaults."""
        fields = entry_of(self.method).model_fields
        return {
            name: value
            for name, value in self.parameters.items()
            if name == "seed" or (field := fields[_attribute(name)]).is_required() or [value] != field.default
        }


def expand(
    entry: MergeEntry,
    members: list[str],
    default_seed: int,
    base: str,
    by_member: Callable[[Any], Any] = lambda value: value,
) -> list[Recipe]:
    """All points of one merge entry's grid; ``by_member`` puts maps of tasks into maps of members.

    Members are put into canonical (sorted) order, since the order changes random masks under one
    seed; where the first one has a part of its own (SLERP), the order has a meaning and is kept.
    """
    ordered = tuple(members if entry.base == "first" else sorted(members))
    names = entry.axes()
    values = [getattr(entry, name) for name in names]
    values = [[default_seed] if v is None else v for v in values]
    public = [name.rstrip("_") for name in names]
    found = []
    for convention in getattr(entry, "convention", ["mergekit"]):
        method = entry.method + ("_paper" if convention == "paper" else "")
        for point in itertools.product(*values):
            parameters = {k: _simple(by_member(v)) for k, v in zip(public, point, strict=True)}
            role = {"needed": base, "first": ordered[0], "refused": None, "optional": None}[entry.base]
            role = base if parameters.get("use_base") else role
            found.append(Recipe(method, ordered, parameters, role))
    return found


def _simple(value: Any) -> Any:
    """A map whose members all have the same value is that value."""
    same = (
        isinstance(value, dict)
        and not is_layered(value)
        and all(v == next(iter(value.values())) for v in value.values())
    )
    return next(iter(value.values())) if same else value


def _attribute(parameter: str) -> str:
    return "lambda_" if parameter == "lambda" else parameter


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "_per_layer" if is_layered(value) else "_per_member"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
