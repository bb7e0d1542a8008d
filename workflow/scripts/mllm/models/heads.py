"""Classification heads: their labels in a configuration, their modules in a model."""

from typing import Any


def label_config(names: list[Any]) -> dict[str, Any]:
    """The label map as transformers' configuration wants it."""
    labels = [str(n) for n in names]
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {n: i for i, n in enumerate(labels)},
        "problem_type": "single_label_classification",
    }


def head_modules(model: Any) -> list[str]:
    """Names of a classifier's modules that no pretrained checkpoint has: all beside the base model."""
    own = [(name, child) for name, child in model.named_children() if name != model.base_model_prefix]
    return [name for name, child in own if any(True for _ in child.parameters())]
