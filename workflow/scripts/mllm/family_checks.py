"""What a model's family can be used for, in words."""

from typing import Any

from mllm.phrases import dicts

FAMILIES = ("classifier", "text2text", "causal")


def family_problems(raw: dict[str, Any]) -> list[str]:
    """One line for each model that stands where its family cannot, or has a key of another family."""
    entries = {m["name"]: m for m in dicts(raw.get("models")) if isinstance(m.get("name"), str)}
    family = {name: entry.get("family", "classifier") for name, entry in entries.items()}
    problems = []
    for i, entry in enumerate(dicts(raw.get("models"))):
        found = entry.get("family", "classifier")
        if found == "classifier" and entry.get("prompt") is not None:
            problems.append(f"models[{i}].prompt: a classifier is asked nothing; leave it out, or name another family")
        if found == "text2text" and entry.get("source") == "scratch":
            problems.append(
                f"models[{i}].family: found 'text2text', but source: scratch makes classifier and causal alone"
            )
    base = raw.get("base")
    if isinstance(base, str) and family.get(base) in FAMILIES[1:]:
        problems.append(f"base: {base!r} is of family {family[base]}; experts are fine-tuned from classifiers so far")
    for i, entry in enumerate(dicts(raw.get("references"))):
        model, train = entry.get("model"), entry.get("train", "all")
        found = family.get(model) if isinstance(model, str) else None
        if train == "none" and found == "classifier":
            problems.append(
                f"references[{i}].train: none, but {model!r} is a classifier, whose head is random until trained"
            )
        if train == "all" and found in FAMILIES[1:]:
            problems.append(
                f"references[{i}].train: all, but {model!r} is of family {found}, which is asked as it is; expected none"
            )
    return problems
