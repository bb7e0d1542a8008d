"""Find recipes that compute the same merge in different notation."""

import json
from typing import Any

from mllm.experiment.layered import is_layered
from mllm.experiment.recipes import Recipe

Scalars = list[float]


# ── Which recipes compute the same ──


def meaning(recipe: Recipe) -> tuple[str, str]:
    """Return a key that all recipes with the same result (up to rounding) share, and the reason why it was reduced.

    Returns:
        The key, ``copy <name>`` if the result is one of the inputs; and the reason in words (empty: no reduction).
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
            return ["slerp", sorted(members), {"t": _round(1 - p["t"])}], "members swapped, t = 1 - t"
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
    """Reduce methods of the form base + lambda x combination of task vectors."""
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
    """Return one number for each member; None if a value changes with depth."""
    values = (
        [value[m] for m in members] if isinstance(value, dict) and not is_layered(value) else [value] * len(members)
    )
    return values if all(isinstance(v, float) for v in values) else None


def _round(value: float) -> float:
    """Round to 12 digits, so that numbers that differ only by 64-bit rounding are equal."""
    return float(f"{value:.12g}")
