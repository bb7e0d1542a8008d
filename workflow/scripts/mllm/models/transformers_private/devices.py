"""How layers that lie on several GPUs find their inputs: by accelerate's hooks."""

from typing import Any


def hooked(module: Any) -> bool:
    """Whether accelerate brings a module's inputs to its GPU."""
    return hasattr(module, "_hf_hook")
