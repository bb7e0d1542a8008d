"""Describe classification heads: their labels in a configuration, their modules in a model."""

from typing import Any


def label_config(names: list[Any]) -> dict[str, Any]:
    """Return the label map in the form of transformers' configuration."""
    labels = [str(n) for n in names]
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {n: i for i, n in enumerate(labels)},
        "problem_type": "single_label_classification",
    }


def head_modules(model: Any) -> list[str]:
    """Return the names of a classifier's modules outside the base model, which no pretrained checkpoint has."""
    own = [(name, child) for name, child in model.named_children() if name != model.base_model_prefix]
    return [name for name, child in own if any(True for _ in child.parameters())]
