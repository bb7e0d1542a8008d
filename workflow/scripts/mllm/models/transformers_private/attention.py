"""Read and change transformers' attention and its position biases."""

from collections.abc import Callable
from typing import Any

import torch


def fused(model: Any) -> bool:
    """Return whether attention is torch's own function, which takes a mask of any form."""
    return str(model.config._attn_implementation) == "sdpa"


def t5_bias(model: Any, depths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the biases of T5's decoder: by the distances of depths, and by those of places in the sequence.

    Args:
        model: a T5 or mT5 model.
        depths: depths of the decoder's nodes.

    Returns:
        Two tensors of (1, heads, nodes, nodes), to add to attention scores.
    """
    attention = model.decoder.block[0].layer[0].SelfAttention
    device = attention.relative_attention_bias.weight.device
    depth = torch.tensor(depths, device=device)
    bucket = attention._relative_position_bucket(
        depth[None, :] - depth[:, None],
        bidirectional=False,
        num_buckets=attention.relative_attention_num_buckets,
        max_distance=attention.relative_attention_max_distance,
    )
    by_depth = attention.relative_attention_bias(bucket).permute(2, 0, 1)[None]
    return by_depth, attention.compute_bias(len(depths), len(depths), device=device)


def fuse_t5_attention(model: Any) -> None:
    """Store T5's position bias as attention's fused kernel reads it; else torch multiplies, adds and divides separately.

    This is only a speed-up: it is left out if transformers has renamed the method that makes the bias.
    """
    for module in model.modules():
        biased = getattr(module, "has_relative_attention_bias", False) and hasattr(module, "compute_bias")
        if biased and "compute_bias" not in vars(module):
            module.compute_bias = _contiguous(module.compute_bias)


def _contiguous(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda *args, **kwargs: make(*args, **kwargs).contiguous()
