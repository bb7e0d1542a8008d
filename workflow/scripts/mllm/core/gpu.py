"""How torch computes on this machine's GPU, if there is one."""

import torch


def device() -> str:
    """Return the device that models compute on: cuda if torch sees a GPU, else cpu."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def has_bfloat16() -> bool:
    """Return whether the GPU multiplies in bfloat16; GPUs before sm_80 emulate it, slower than float32."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def settle_attention() -> None:
    """Turn cuDNN's attention off: it makes a plan for every shape, and returned NaN for masked rows on sm_90."""
    torch.backends.cuda.enable_cudnn_sdp(False)
