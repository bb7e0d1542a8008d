"""Values that change with depth: ``{layers: [first, …, last], rest: …}``. Merges need this, not the file's types."""

from typing import Any


def is_layered(value: Any) -> bool:
    """Return whether a value is meant to change with depth."""
    return isinstance(value, dict) and "layers" in value
