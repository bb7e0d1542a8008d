"""Match the outputs of published classifiers to a task's classes, and put the head into the classes' order."""

from pathlib import Path
from typing import Any

from mllm.core.errors import Failure
from mllm.core.files import read_json
from mllm.core.messages import log
from mllm.models.checkpoint_files import label_names
from mllm.models.heads import head_modules

UNNAMED = ["LABEL_0", "LABEL_1"]  # transformers' default for a configuration without names
SAMPLES = ("The pain went away after 2 days.", "no effect")


def order_of(folder: Path, names: list[str], said: dict[str, str] | None = None) -> list[int]:
    """Return the output of each class: as the experiment says, else by name, ignoring case.

    Args:
        folder: a classifier's checkpoint.
        names: the classes' names.
        said: class -> name of its output in the checkpoint.

    Raises:
        Failure: the outputs are not probabilities of one class each; a class has no output, or an output no class.
    """
    file = folder / "config.json"
    found = label_names(folder) or UNNAMED
    kind = read_json(file).get("problem_type")
    if kind in ("multi_label_classification", "regression"):
        raise Failure(
            f"{file}: problem_type is {kind}; expected a classifier whose outputs are the probabilities of one class each"
        )
    if said is None:
        plain = [name.strip().casefold() for name in found]
        wanted = [name.strip().casefold() for name in names]
        same = names if sorted(found) == sorted(names) else None
        same = same or ([found[plain.index(w)] for w in wanted] if sorted(plain) == sorted(set(wanted)) else None)
        if same is None:
            pairs = ", ".join(f"{n}: …" for n in names[:2])
            raise Failure(
                f"{file}: its labels differ from the task's (found {', '.join(found)}; expected {', '.join(names)}). Fix: map"
                f" them (labels: {{{pairs}}} beside model), or use a classifier of these classes"
            )
        said = dict(zip(names, same, strict=True))
    absent = [n for n in names if n not in said]
    if absent or len(said) != len(names):
        raise Failure(f"labels: found {', '.join(said)}; expected the task's classes: {', '.join(names)}")
    unknown = [v for v in said.values() if v not in found]
    if unknown:
        raise Failure(f"{file}: labels: it has no label {unknown[0]!r} (found {', '.join(found)})")
    if len(found) != len(names):
        raise Failure(
            f"{file}: found {len(found)} labels ({', '.join(found)}), expected {len(names)}, the task's classes"
        )
    return [found.index(said[name]) for name in names]


def reorder(model: Any, tokenizer: Any, folder: Path, order: list[int]) -> None:
    """Put a classifier's outputs into the classes' order, and prove on texts that they are the same outputs.

    Args:
        model: the model as loaded.
        tokenizer: its tokenizer.
        folder: the folder it was loaded from.
        order: the output of each class.

    Raises:
        Failure: the head's last linear map is not found.
    """
    import torch

    if order == sorted(order):
        return
    if sorted(order) != list(range(model.config.num_labels)):
        raise Failure(f"{folder}: {model.config.num_labels} outputs cannot have the order {order}")
    texts = [tokenizer(text, return_tensors="pt", truncation=True) for text in SAMPLES]
    model.eval()
    with torch.inference_mode():
        before = [model(**_read(t)).logits[:, order] for t in texts]
    last = [
        m for name in head_modules(model) for m in model.get_submodule(name).modules()
        if isinstance(m, torch.nn.Linear) and m.out_features == len(order)
    ]  # fmt: skip
    with torch.no_grad():
        for tensor in last[-1].parameters() if last else ():
            tensor.copy_(tensor[order])
    with torch.inference_mode():
        after = [model(**_read(t)).logits for t in texts]
    if not all(torch.allclose(a, b, atol=1e-5) for a, b in zip(before, after, strict=True)):
        raise Failure(
            f"{folder}: the outputs of a {model.config.model_type} cannot be put into the task's order. Fix: save the"
            " checkpoint with its labels in that order"
        )
    log.info("%s: its outputs are put into the task's order: %s", folder, ", ".join(map(str, order)))


def _read(tokens: Any) -> dict[str, Any]:
    return {key: tokens[key] for key in ("input_ids", "attention_mask") if key in tokens}
