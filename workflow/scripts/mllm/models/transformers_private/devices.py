"""Detect accelerate's hooks, which bring inputs to layers on several GPUs."""

from typing import Any


def hooked(module: Any) -> bool:
    """Return whether accelerate brings a module's inputs to its GPU."""
    return hasattr(module, "_hf_hook")
