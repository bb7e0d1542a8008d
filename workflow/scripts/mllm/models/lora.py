"""Add low-rank adapters (Hu et al. 2021, arXiv 2106.09685) by peft, and fold them into the weights for merging."""

from typing import Any

from mllm.models import families
from mllm.models.heads import head_modules


def adapted(model: Any, family: str, spec: dict[str, Any], seed: int) -> Any:
    """Freeze a model and add adapters to its linear maps; a classifier's head is trained without adapters.

    Args:
        model: a model of any family.
        family: the name of its family.
        spec: rank, alpha, dropout.
        seed: the seed of the adapters' first values.
    """
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed

    head = head_modules(model) if family == families.HEADED else []
    config = LoraConfig(
        r=spec["rank"], lora_alpha=spec["alpha"], lora_dropout=spec["dropout"], target_modules="all-linear",
        exclude_modules=head or None, modules_to_save=head or None,
    )  # fmt: skip
    set_seed(seed)
    return get_peft_model(model, config)


def folded(model: Any) -> Any:
    """Return the plain model, with its adapters' products added to its weights."""
    return model.merge_and_unload()
