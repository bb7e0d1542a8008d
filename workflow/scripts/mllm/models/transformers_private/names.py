"""Find the names in a checkpoint that transformers skips silently."""

from typing import Any


def passed_over(model: Any) -> list[str]:
    """Return patterns of names in a checkpoint that an architecture's class skips silently.

    The list is empty if transformers has renamed the attribute: its report then has the skipped names.
    """
    return sorted(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ())
