"""Find merge methods by name: mergekit's, and one file here for each that this project computes itself.

A merge depends on its own method's file only. A file's ``METHOD`` replaces mergekit's of the same name: it gives the
same bits faster. This module is light to import.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mllm.merging.mergekit_private.methods import MergeMethod

OURS = frozenset(p.stem for p in Path(__file__).parent.glob("[a-z]*.py"))


def modules(name: str) -> list[str]:
    """Return the module of a recipe's method, to be loaded by name; an empty list where mergekit computes it."""
    return [f"{__name__}.{name}"] if name in OURS else []


def method(name: str) -> "MergeMethod[Any]":
    """Return a recipe's method."""
    for module in modules(name):
        return import_module(module).METHOD
    from mllm.merging.mergekit_private.methods import registry

    return registry.get(name)


def in_mergekit(name: str) -> bool:
    """Tell whether the ``mergekit-yaml`` command knows the method."""
    from mllm.merging.mergekit_private.methods import registry

    return name in {m.spec.name for m in registry.registered_methods()}
