"""Check each model's use against its family."""

from typing import Any

from mllm.core.wording import listed, nearest
from mllm.experiment import family_names as families
from mllm.experiment.names import dicts

POSSIBLE = {
    "gpt2": ("classifier", "causal"), "llama": ("classifier", "causal"), "bert": ("classifier",),
    "t5": ("classifier", "text2text"),
}  # fmt: skip
GENERATIVE = ("gpt2", "llama")  # architectures that pretrain can train


def family_problems(raw: dict[str, Any]) -> list[str]:
    """Return one line for each model that is used as its family cannot be, or has a key of another family."""
    entries = {m["name"]: m for m in dicts(raw.get("models")) if isinstance(m.get("name"), str)}
    family = {name: entry.get("family", families.HEADED) for name, entry in entries.items()}
    asked = {name for name, found in family.items() if found in families.NAMES and found != families.HEADED}
    problems = []
    for i, entry in enumerate(dicts(raw.get("models"))):
        found, architecture = entry.get("family", families.HEADED), entry.get("architecture", "gpt2")
        if found == families.HEADED and entry.get("prompt") is not None:
            problems.append(
                f"models[{i}].prompt: a classifier is asked nothing. Fix: remove it, or name another family"
            )
        if entry.get("source") != "scratch" or architecture not in POSSIBLE:
            continue
        problems += [f"models[{i}].{p}" for p in _width_problems(entry, architecture)]
        if found in families.NAMES and found not in POSSIBLE[architecture]:
            possible = " or ".join(POSSIBLE[architecture])
            problems.append(f"models[{i}].family: found {found!r}, but architecture {architecture} makes {possible}")
        if entry.get("pretrain") is not None and architecture not in GENERATIVE:
            problems.append(
                f"models[{i}].pretrain: trains a language model, which {architecture} is not. Fix: remove it"
            )
    trained = [("base", raw.get("base"))] if isinstance(raw.get("base"), str) else []
    for i, entry in enumerate(dicts(raw.get("references"))):
        model, train = entry.get("model"), entry.get("train", "all")
        scratch = isinstance(model, str) and entries.get(model, {}).get("source") == "scratch"
        if train == "none" and scratch and family[model] == families.HEADED:
            problems.append(
                f"references[{i}].train: found none, but {model!r} has source scratch: its head is random until trained"
            )
        if train == "probe" and isinstance(model, str) and family.get(model, families.HEADED) != families.HEADED:
            problems.append(
                f"references[{i}].train: found probe, but {model!r} is no classifier (found family {family[model]})"
            )
        if train in ("all", "joint", "tasks") and isinstance(model, str):
            trained.append((f"references[{i}].model", model))
    for where, model in trained:
        prompt = entries.get(model, {}).get("prompt") if model in asked else None
        if isinstance(prompt, dict) and prompt.get("examples"):
            problems.append(
                f"{where}: {model!r} is fine-tuned, and shown no examples. Fix: remove prompt.examples, or name another"
                " model with the same checkpoint for few-shot prompts"
            )
    return problems


def _width_problems(entry: dict[str, Any], architecture: str) -> list[str]:
    """Return a problem if the heads cannot share the width; llama rotates pairs of each head's numbers."""
    width, heads = entry.get("width", 64), entry.get("heads", 2)
    if not (isinstance(width, int) and isinstance(heads, int) and width > 0 and heads > 0):
        return []
    step = 2 * heads if architecture == "llama" else heads
    if width % step == 0:
        return []
    fits = max(step, width // step * step)
    return [
        f"width: found {width}, expected a multiple of {step} ({heads} heads of {architecture}), such as {fits} or"
        f" {fits + step}"
    ]


def label_problems(raw: dict[str, Any]) -> list[str]:
    """Return one line for each ``labels`` map of a trained model, or that does not name each class of the task once."""
    tasks = {t["name"]: t for t in dicts(raw.get("tasks")) if isinstance(t.get("name"), str)}
    family = {
        m["name"]: m.get("family", families.HEADED) for m in dicts(raw.get("models")) if isinstance(m.get("name"), str)
    }
    problems = []
    for kind, beside in (("experts", "model"), ("references", "train: none")):
        for i, entry in enumerate(dicts(raw.get(kind))):
            labels, where = entry.get("labels"), f"{kind}[{i}].labels"
            if not isinstance(labels, dict) or not all(isinstance(c, str) for c in labels):
                continue
            if not (entry.get("model") is not None if kind == "experts" else entry.get("train") == "none"):
                problems.append(f"{where}: only beside {beside}; a model trained here has the task's own classes")
                continue
            model = entry.get("model")
            if isinstance(model, str) and family.get(model, families.HEADED) != families.HEADED:
                problems.append(f"{where}: {model!r} answers a prompt, and has no outputs. Fix: use prompt.words")
                continue
            classes = _classes(tasks.get(entry.get("task") or next(iter(tasks), ""), {}))
            unknown = [c for c in labels if classes and c not in classes]
            missing = [c for c in classes if c not in labels]
            twice = [v for v in labels.values() if list(labels.values()).count(v) > 1]
            if unknown:
                problems.append(
                    f"{where}: {unknown[0]!r} is no class; allowed: {listed(classes)}{nearest(str(unknown[0]), classes)}"
                )
            elif missing:
                problems.append(f"{where}: gives no output for {listed(missing)}, expected one output for each class")
            elif twice:
                problems.append(f"{where}: {twice[0]!r} is the output of several classes, expected one output for each")
    return problems


def _classes(task: dict[str, Any]) -> list[str]:
    """Return a task's classes if the file alone tells them; conditions are counted in the reviews later."""
    if isinstance(task.get("classes"), dict):
        return [c for c in task["classes"] if isinstance(c, str)]
    known = {"sentiment": ["negative", "neutral", "positive"], "rating": [str(i) for i in range(1, 11)]}
    label = task.get("label")
    return known.get(label, []) if isinstance(label, str) else []
