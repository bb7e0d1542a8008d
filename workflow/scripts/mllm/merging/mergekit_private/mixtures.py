"""Use mergekit-moe's parts that make the router's weights and write a mixture."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergekit.architecture import arch_info_for_config
from mergekit.common import ModelPath, ModelReference
from mergekit.moe import ALL_OUTPUT_ARCHITECTURES
from mergekit.moe.config import Expert, MoEMergeConfig
from mergekit.moe.router import get_cheap_embedding as get_cheap_embedding
from mergekit.moe.router import get_gate_params
from mergekit.moe.router import get_hidden_states as get_hidden_states
from mergekit.moe.router import warn_degenerate_gates as warn_degenerate_gates
from mergekit.options import MergeOptions

if TYPE_CHECKING:
    import torch


def reference(folder: Path) -> ModelReference:
    """Return a folder as mergekit's reference; mergekit gives + and @ a meaning in references that are text."""
    return ModelReference(model=ModelPath(path=str(folder)))


def known_tensors(folder: Path) -> set[str]:
    """Return the names of the tensors that mergekit-moe knows in a folder's architecture; it drops others silently."""
    loaded = reference(folder).config()
    return {w.name for w in arch_info_for_config(loaded).all_weights(loaded)}


def random_router(folder: Path, experts: int, tokenizer: Any, mode: str) -> "torch.Tensor":
    """Draw the weights of a router, (layers, experts, width), for experts like this folder's."""
    model = reference(folder)
    return get_gate_params(model, tokenizer, [Expert(source_model=model)] * experts, mode=mode)


def write_mixture(
    writer: str, average: Path, experts: Sequence[Path], router: "torch.Tensor", settings: dict[str, Any], folder: Path
) -> None:
    """Let mergekit-moe write a mixture, without a classification head.

    Args:
        writer: mergekit's name of the architecture.
        average: folder of the model that gives everything except the feed-forward blocks.
        experts: folders that give the feed-forward blocks.
        router: (layers, experts, width), with one more expert where the architecture has a shared expert: the average.
        settings: gate_mode, experts_per_token, dtype, and residual_scale of the shared expert.
        folder: the folder to write.
    """
    (made_by,) = (a for a in ALL_OUTPUT_ARCHITECTURES if a.name() == writer)
    count, more = len(experts), dict(settings)
    shared = [Expert(source_model=reference(average), residual_scale=more.pop("residual_scale"))]
    config = MoEMergeConfig(
        base_model=reference(average),
        experts=[Expert(source_model=reference(f)) for f in experts],
        shared_experts=shared if router.shape[1] > count else None,
        **more,
    )
    made_by.write_model(str(folder), config, MergeOptions(), [g[:count] for g in router], [g[count:] for g in router])
