"""What a model's family can be used for, in words."""

from typing import Any

from mllm.experiment import family_names as families
from mllm.experiment.names import dicts

POSSIBLE = {
    "gpt2": ("classifier", "causal"), "llama": ("classifier", "causal"), "bert": ("classifier",),
    "t5": ("classifier", "text2text"),
}  # fmt: skip
GENERATIVE = ("gpt2", "llama")  # what pretrain can train


def family_problems(raw: dict[str, Any]) -> list[str]:
    """One line for each model that stands where its family cannot, or has a key of another family."""
    entries = {m["name"]: m for m in dicts(raw.get("models")) if isinstance(m.get("name"), str)}
    family = {name: entry.get("family", families.HEADED) for name, entry in entries.items()}
    asked = {name for name, found in family.items() if found in families.NAMES and found != families.HEADED}
    problems = []
    for i, entry in enumerate(dicts(raw.get("models"))):
        found, architecture = entry.get("family", families.HEADED), entry.get("architecture", "gpt2")
        if found == families.HEADED and entry.get("prompt") is not None:
            problems.append(f"models[{i}].prompt: a classifier is asked nothing; leave it out, or name another family")
        if entry.get("source") != "scratch" or architecture not in POSSIBLE:
            continue
        if found in families.NAMES and found not in POSSIBLE[architecture]:
            possible = " or ".join(POSSIBLE[architecture])
            problems.append(f"models[{i}].family: found {found!r}; architecture {architecture} makes {possible}")
        if entry.get("pretrain") is not None and architecture not in GENERATIVE:
            problems.append(f"models[{i}].pretrain: trains a language model, which {architecture} is not; leave it out")
    trained = [("base", raw.get("base"))] if isinstance(raw.get("base"), str) else []
    for i, entry in enumerate(dicts(raw.get("references"))):
        model, train = entry.get("model"), entry.get("train", "all")
        if train == "none" and isinstance(model, str) and family.get(model) == families.HEADED:
            problems.append(
                f"references[{i}].train: none, but {model!r} is a classifier, whose head is random until trained"
            )
        if train == "probe" and isinstance(model, str) and family.get(model, families.HEADED) != families.HEADED:
            problems.append(
                f"references[{i}].train: probe, but {model!r} is no classifier; expected one of family {families.HEADED}"
            )
        if train in ("all", "joint") and isinstance(model, str):
            trained.append((f"references[{i}].model", model))
    for where, model in trained:
        prompt = entries.get(model, {}).get("prompt") if model in asked else None
        if isinstance(prompt, dict) and prompt.get("examples"):
            problems.append(
                f"{where}: {model!r} is fine-tuned, and shown no examples; leave prompt.examples out, or name another model"
                " with the same checkpoint for few-shot"
            )
    return problems
