"""How torch computes on this machine's GPU, if there is one."""

import functools
from collections.abc import Callable
from typing import Any

import torch


def device() -> str:
    """Return the device that models compute on: cuda if torch sees a GPU, else cpu."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def has_bfloat16() -> bool:
    """Return whether the GPU multiplies in bfloat16; GPUs before sm_80 emulate it, slower than float32."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def settle_attention() -> None:
    """Avoid two faults of torch's attention on GPUs.

    cuDNN's kernel makes a plan for every shape and returned NaN for masked rows on sm_90: it is switched off. The
    memory-efficient kernel reads beyond keys that all heads share as one view: it gets a copy, see :func:`own_keys`.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)
    attention = torch.nn.functional.scaled_dot_product_attention
    if not hasattr(attention, "__wrapped__"):
        torch.nn.functional.scaled_dot_product_attention = own_keys(attention)


def own_keys(attention: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Wrap attention so that on a GPU each head has keys and values of its own in memory.

    A model with one key head shows it to all heads by a stride of 0. With a mask and 65, 129, 193, … keys, the
    memory-efficient kernel then gives wrong results without any message (an H100, torch 2.11: errors of 0.5 in the last
    query; pytorch/pytorch#191937).
    """

    @functools.wraps(attention)
    def with_own_keys(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *rest: Any, **named: Any
    ) -> torch.Tensor:
        if query.is_cuda:
            key, value = (t.contiguous() if 0 in t.stride() else t for t in (key, value))
        return attention(query, key, value, *rest, **named)

    return with_own_keys
