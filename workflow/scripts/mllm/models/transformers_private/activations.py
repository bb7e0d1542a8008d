"""Replace activations that transformers computes in many steps."""

from typing import Any

import torch

from mllm.core.messages import log


def fuse_gelu(model: Any) -> None:
    """Replace transformers' approximate GELU by torch's: the same function in one pass over memory instead of eight.

    This is only a speed-up. If transformers has renamed its class, it is left out, with a line in the log.
    """
    try:
        from transformers.activations import NewGELUActivation
    except ImportError:
        log.info("transformers no longer has NewGELUActivation: GPT-2's activations are slower")
        return
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, torch.nn.GELU(approximate="tanh"))
