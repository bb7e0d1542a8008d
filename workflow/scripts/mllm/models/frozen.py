"""Freeze the layers that a training leaves as in the base."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from mllm.core.errors import Failure
from mllm.models import families
from mllm.models.heads import head_modules


@dataclass(frozen=True)
class Frozen:
    """The part of a model that a training does not change.

    Frozen modules are in evaluation mode, without dropout: a review has the same states in every epoch.

    Args:
        modules: the modules that hold the frozen weights.
        layers: those modules, from the first, whose states can be given instead of being computed.
    """

    modules: list[Any]
    layers: list[Any]

    def freeze(self) -> None:
        """Exclude the frozen weights from training; adapters inside them stay 0."""
        for module in self.modules:
            module.requires_grad_(False)

    @contextmanager
    def at_rest(self, states: torch.Tensor | None) -> Iterator[None]:
        """Run the frozen modules without dropout, although the Trainer changes the model's mode at each step.

        Args:
            states: (reviews, tokens, width) that the frozen layers return instead of computing them; None: they compute.
        """
        for module in self.modules:
            module.eval()
        replaced = [] if states is None else self.layers
        for layer in replaced:  # an instance attribute hides the class's method
            layer.forward = lambda *_, **__: states
        try:
            yield
        finally:
            for layer in replaced:
                del layer.forward


def part(model: Any, family: str, hyper: dict[str, Any]) -> Frozen | None:
    """Return the part that ``freeze`` and ``head_only`` keep from training; None if all weights are trained.

    Args:
        model: the model as loaded, without adapters.
        family: the name of its family.
        hyper: the training's hyper-parameters.

    Raises:
        Failure: the model has fewer layers, or no head.
    """
    body = getattr(model, model.base_model_prefix, model)
    before, layers = _embeddings_and_layers(body, model.config.num_hidden_layers)
    if hyper.get("head_only"):
        if family != families.HEADED or not head_modules(model):
            raise Failure(f"head_only: found a model of family {family}, expected {families.HEADED}. Fix: remove it")
        return Frozen([body], layers)
    number = hyper.get("freeze", 0)
    if number > len(layers):
        kind = model.config.model_type
        raise Failure(f"freeze: found {number}, expected at most {len(layers)}, the layers of this {kind}")
    return Frozen([*before, *layers[:number]], layers[:number]) if number else None


def pad(states: list[torch.Tensor], tokens: int) -> torch.Tensor:
    """Pad states to (reviews, tokens, width) with zeros on the right, where nothing sees them."""
    padded = torch.zeros(len(states), tokens, states[0].shape[1])
    for to, own in zip(padded, states, strict=True):
        to[: len(own)] = own
    return padded


def _embeddings_and_layers(body: Any, number: int) -> tuple[list[Any], list[Any]]:
    """Return the modules before a model's first stack of layers (T5: its encoder's), in order, and that stack's layers."""
    before: list[tuple[str, Any]] = []
    for name, module in body.named_modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == number:
            return [m for other, m in before if other and not name.startswith(f"{other}.")], list(module)
        before.append((name, module))
    raise Failure(
        f"{type(body).__name__} has no list of {number} layers, which freeze and head_only need. Fix: remove them"
    )
