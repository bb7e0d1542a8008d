"""Layers that a training leaves as the base has them."""

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
    """What a training leaves as it is.

    Frozen modules are in evaluation mode, without dropout: a review has the same states in every epoch.

    Args:
        modules: that hold the frozen weights.
        layers: those of them whose states can be given instead of being computed, from the first.
    """

    modules: list[Any]
    layers: list[Any]

    def freeze(self) -> None:
        """Train none of the frozen weights; adapters inside of them stay 0."""
        for module in self.modules:
            module.requires_grad_(False)

    @contextmanager
    def at_rest(self, states: torch.Tensor | None) -> Iterator[None]:
        """The frozen modules without dropout, whatever mode the Trainer puts the model into at each step.

        Args:
            states: (reviews, tokens, width) what the frozen layers return instead of computing it; None: they compute.
        """
        for module in self.modules:
            module.eval()
        replaced = [] if states is None else self.layers
        for layer in replaced:  # an attribute of its own hides the class's method
            layer.forward = lambda *_, **__: states
        try:
            yield
        finally:
            for layer in replaced:
                del layer.forward


def part(model: Any, family: str, hyper: dict[str, Any]) -> Frozen | None:
    """What a training's ``freeze`` and ``head_only`` leave as it is; None where all weights are trained.

    Args:
        model: as loaded, without adapters.
        family: its name.
        hyper: of the training.

    Raises:
        Failure: the model has fewer layers, or no head.
    """
    body = getattr(model, model.base_model_prefix, model)
    before, layers = _embeddings_and_layers(body, model.config.num_hidden_layers)
    if hyper.get("head_only"):
        if family != families.HEADED or not head_modules(model):
            raise Failure(f"head_only: found a model of family {family}, expected {families.HEADED}. Fix: leave it out")
        return Frozen([body], layers)
    number = hyper.get("freeze", 0)
    if number > len(layers):
        kind = model.config.model_type
        raise Failure(f"freeze: found {number}, expected at most {len(layers)}, the layers of this {kind}")
    return Frozen([*before, *layers[:number]], layers[:number]) if number else None


def pad(states: list[torch.Tensor], tokens: int) -> torch.Tensor:
    """(reviews, tokens, width) states with zeros on the right, where nothing sees them."""
    padded = torch.zeros(len(states), tokens, states[0].shape[1])
    for to, own in zip(padded, states, strict=True):
        to[: len(own)] = own
    return padded


def _embeddings_and_layers(body: Any, number: int) -> tuple[list[Any], list[Any]]:
    """The modules before a model's first stack of layers (T5: its encoder's), in the order of the model; that stack's layers."""
    before: list[tuple[str, Any]] = []
    for name, module in body.named_modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == number:
            return [m for other, m in before if other and not name.startswith(f"{other}.")], list(module)
        before.append((name, module))
    raise Failure(
        f"{type(body).__name__} has no list of {number} layers: neither freeze nor head_only know what to leave"
    )
