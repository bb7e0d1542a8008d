"""The recipes that merge entries expand to: canonical, named, and known to be the same where they are."""

import hashlib
import itertools
import json
from dataclasses import dataclass
from typing import Any

from mllm.methods import entry_of
from mllm.parameters import is_layered
from mllm.task_vectors import MergeEntry

Scalars = list[float]


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


def expand(entry: MergeEntry, members: list[str], default_seed: int, base: str = "base") -> list[Recipe]:
    """All points of one merge entry's grid.

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
            parameters = {k: _simple(v) for k, v in zip(public, point, strict=True)}
            role = {"needed": base, "first": ordered[0], "refused": None, "optional": None}[entry.base]
            role = base if parameters.get("use_base") else role
            found.append(Recipe(method, ordered, parameters, role))
    return found


# ── Which recipes compute the same ──


def meaning(recipe: Recipe) -> tuple[str, str]:
    """What a recipe computes up to rounding, in one spelling for all that compute it, and what reduced it to that.

    Returns:
        A key, ``copy <name>`` where the outcome is one of the inputs; and the reason in words (empty: none was needed).
    """
    p = dict(recipe.parameters)
    out = p.pop("out_dtype", "float32")
    values, reasons = _reduced(recipe, p)
    if isinstance(values, str):
        return (values if out == "float32" else f"{values} {out}"), reasons
    return json.dumps([*values, out], sort_keys=True), reasons


def _reduced(recipe: Recipe, p: dict[str, Any]) -> tuple[Any, str]:
    members = list(recipe.members)
    weights = _per_member(p.get("weight"), members)
    if "lambda" in p:
        return _reduced_task_vectors(recipe, p, weights)
    match recipe.method:
        case "slerp" | "nearswap" if p["t"] == 0:
            return f"copy {members[0]}", "t = 0"
        case "slerp" if p["t"] == 1:
            return f"copy {members[1]}", "t = 1"
        case "slerp" if isinstance(p["t"], float) and members != sorted(members):
            return ["slerp", sorted(members), {"t": _round(1 - p["t"])}], "the other way round"
        case "passthrough" if p["scale"] == 1:
            return f"copy {members[0]}", "passed through"
        case "linear" | "multislerp" | "nuslerp" if weights:
            normalized = recipe.method == "nuslerp" or p.get("normalize", p.get("normalize_weights"))
            shares = [_round(w / sum(weights)) for w in weights] if normalized and sum(weights) else weights
            if 1 in shares and sum(map(bool, shares)) == 1:
                return f"copy {members[shares.index(1)]}", "all weight on one member"
            p["weight"] = shares
            if p.get("nuslerp_flatten"):
                p.pop("nuslerp_row_wise")
            return [recipe.method, members, p], "weights that differ by a factor" if shares != weights else ""
    return [recipe.method, members, p], ""


def _reduced_task_vectors(recipe: Recipe, p: dict[str, Any], weights: Scalars | None) -> tuple[Any, str]:
    """Everything of the form base + lambda x combination of task vectors."""
    method, members, reasons = recipe.method, list(recipe.members), []
    elected = method.removesuffix("_paper") not in ("task_arithmetic", "dare_linear", "della_linear", "breadcrumbs")
    if p["lambda"] == 0 or (weights and not any(weights)):
        return f"copy {recipe.base}", "lambda = 0" if p["lambda"] == 0 else "weight = 0"
    if p.get("density") == 1 and method != "ties_paper":
        for name in ("density", "gamma", "epsilon", "rescale", "seed"):
            p.pop(name, None)
        plain = "ties" if elected else "task_arithmetic"
        if method != plain:
            reasons.append("density = 1")
        method = plain
    if not weights:
        return [method, members, p], ", ".join(reasons)
    if not all(weights) and "seed" not in p:
        members = [m for m, w in zip(members, weights, strict=True) if w]
        weights = [w for w in weights if w]
        reasons.append("members of weight 0 left out")
    before = weights
    if p["normalize"] and (not elected or all(w > 0 for w in weights)):
        weights = [w / sum(weights) for w in weights]
    if isinstance(p["lambda"], float) and (not elected or (p["lambda"] > 0 and not p["normalize"])):
        if not elected:
            p["normalize"] = False
        weights, p["lambda"] = [w * p["lambda"] for w in weights], 1.0
    p["weight"] = [_round(w) for w in weights]
    if p["weight"] != before:
        reasons.append("weights that differ by a factor")
    return [method, members, p], ", ".join(reasons)


def _per_member(value: Any, members: list[str]) -> Scalars | None:
    """One number for each member; none where a value changes with depth."""
    values = (
        [value[m] for m in members] if isinstance(value, dict) and not is_layered(value) else [value] * len(members)
    )
    return values if all(isinstance(v, float) for v in values) else None


def _round(value: float) -> float:
    """To 12 digits: what differs only by the rounding of 64-bit numbers is equal."""
    return float(f"{value:.12g}")


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
