"""Copy a module's list of children, which torch keeps in a private dictionary (written for torch 2.11)."""

import copy
from typing import Any


def shallow_copy(module: Any) -> Any:
    """Return a copy with the same children and weights; replacing its children does not replace the module's."""
    found = copy.copy(module)
    found._modules = dict(module._modules)
    return found
