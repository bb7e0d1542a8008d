"""Names in a checkpoint that transformers leaves out without a word."""

from typing import Any


def passed_over(model: Any) -> list[str]:
    """Patterns of names in a checkpoint that an architecture's class leaves out without saying so.

    None where transformers has renamed the attribute: what is left out is in its report then.
    """
    return sorted(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ())
