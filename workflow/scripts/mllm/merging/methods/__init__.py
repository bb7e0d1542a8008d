"""Merge methods: mergekit's, and one file for each that we compute ourselves; found by name, so that merges depend on their own.

A file's ``METHOD`` goes before mergekit's of the same name: it gives the same bits sooner. Light at import.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mllm.merging.mergekit_private.methods import MergeMethod

OURS = frozenset(p.stem for p in Path(__file__).parent.glob("[a-z]*.py"))


def modules(name: str) -> list[str]:
    """The module of a recipe's method, to be loaded by name; none where mergekit computes it."""
    return [f"{__name__}.{name}"] if name in OURS else []


def method(name: str) -> "MergeMethod[Any]":
    """The method of a recipe."""
    for module in modules(name):
        return import_module(module).METHOD
    from mllm.merging.mergekit_private.methods import registry

    return registry.get(name)


def in_mergekit(name: str) -> bool:
    """Whether the ``mergekit-yaml`` command knows it."""
    from mllm.merging.mergekit_private.methods import registry

    return name in {m.spec.name for m in registry.registered_methods()}
