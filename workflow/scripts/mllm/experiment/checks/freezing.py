"""Check the parts of models that trainings leave unchanged."""

from typing import Any

from mllm.experiment import family_names as families
from mllm.experiment.names import dicts

DEFAULT_LAYERS = 2  # of a model made from scratch


def freezing_problems(raw: dict[str, Any]) -> list[str]:
    """Return one line for each ``freeze`` and ``head_only`` that the model or another key contradicts."""
    models = {m["name"]: m for m in dicts(raw.get("models")) if isinstance(m.get("name"), str)}
    problems = []
    for kind in ("experts", "references"):
        for i, entry in enumerate(dicts(raw.get(kind))):
            name = raw.get("base") if kind == "experts" else entry.get("model")
            model = models.get(name, {}) if isinstance(name, str) else {}
            problems += [f"{kind}[{i}].{problem}" for problem in _problems(entry, model)]
    return problems


def _problems(entry: dict[str, Any], model: dict[str, Any]) -> list[str]:
    number, problems = entry.get("freeze"), []
    layers = model.get("layers", DEFAULT_LAYERS) if model.get("source") == "scratch" else None
    if isinstance(number, int) and isinstance(layers, int) and number > layers:
        problems.append(f"freeze: found {number}, expected at most {layers}, the layers of model {model['name']!r}")
    if entry.get("head_only") is not True:
        return problems
    family = model.get("family", families.HEADED)
    if family != families.HEADED:
        problems.append(
            f"head_only: found a model of family {family}, which has no head. Fix: remove it, or use freeze"
        )
    problems += [
        f"head_only: found beside {key}, expected alone, since it freezes all but the head. Fix: remove one of them"
        for key in ("freeze", "lora")
        if entry.get(key) is not None
    ]
    return problems
