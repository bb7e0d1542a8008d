"""mergekit-moe's parts: what makes the router's weights, what writes a mixture."""

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
    """A folder as mergekit wants it; not as text, in which + and @ have meanings."""
    return ModelReference(model=ModelPath(path=str(folder)))


def known_tensors(folder: Path) -> set[str]:
    """The tensors of an architecture that mergekit-moe takes; it leaves out others without a word."""
    loaded = reference(folder).config()
    return {w.name for w in arch_info_for_config(loaded).all_weights(loaded)}


def random_router(folder: Path, experts: int, tokenizer: Any, mode: str) -> "torch.Tensor":
    """(layers, experts, width) drawn weights of a router for experts like this folder's."""
    model = reference(folder)
    return get_gate_params(model, tokenizer, [Expert(source_model=model)] * experts, mode=mode)


def write_mixture(
    writer: str, average: Path, experts: Sequence[Path], router: "torch.Tensor", settings: dict[str, Any], folder: Path
) -> None:
    """Let mergekit-moe write a mixture, without a classification head.

    Args:
        writer: mergekit's name of the architecture.
        average: folder of the model that gives all but the feed-forward blocks.
        experts: folders that give these.
        router: (layers, experts, width), with one more expert where one is shared, which is the average.
        settings: gate_mode, experts_per_token, dtype, and residual_scale of the shared expert.
        folder: to write.
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
