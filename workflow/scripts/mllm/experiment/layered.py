"""Values that change with depth: ``{layers: [first, …, last], rest: …}``; apart from the file's types, which merges need not load."""

from typing import Any


def is_layered(value: Any) -> bool:
    """Whether a value is meant to change with depth."""
    return isinstance(value, dict) and "layers" in value
