"""Expand merge entries into recipes: canonical and named, so that equal recipes are recognised."""

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
    """Its name in mergekit's registry; ``…_paper`` methods are this project's, by the papers' conventions."""
    members: tuple[str, ...]
    parameters: dict[str, Any]
    base: str | None
    """mergekit's base_model: the experts' base, the first member, or None."""

    def canonical(self) -> dict[str, Any]:
        """Return plain JSON values of everything that determines the merge."""
        return {"method": self.method, "members": list(self.members), "parameters": self.parameters, "base": self.base}

    def name(self) -> str:
        """Return a readable name that depends on this recipe only, so that no other grid point ever renames it.

        It shows required parameters and those that differ from the method's defaults. The hash of the complete recipe
        makes it unique.
        """
        digest = hashlib.sha256(json.dumps(self.canonical(), sort_keys=True).encode()).hexdigest()
        words = [f"{k}{_short(v)}" for k, v in self.telling().items()]
        return "-".join([self.method, *words, digest[:10]])

    def telling(self) -> dict[str, Any]:
        """Return the informative parameters: required ones, seeds, and those that differ from the method's defaults."""
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
    """Return all points of one merge entry's grid; ``by_member`` turns maps of tasks into maps of members.

    Members are sorted, since their order changes random masks under one seed. Methods whose first member has its own
    role (SLERP) keep the order.
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
    """Replace a map by its value if all members have the same one."""
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
