"""Families of models: how one is loaded, asked for a review's class, and trained to answer. One file each.

Light at import, as the experiment file's checks need the names alone; the families themselves import torch.
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from mllm.experiment.family_names import HEADED as HEADED

if TYPE_CHECKING:
    import torch

    from mllm.core.arrays import Array
    from mllm.models.cards import Asked
    from mllm.models.scorers import Scorer

Row = dict[str, Any]
"""A review to train on: ``input_ids`` (list of tokens), ``answer`` (a class index, or a label's tokens)."""


class Family(Protocol):
    """What the module of a family has."""

    AUTO: str
    """Transformers' class that loads it."""
    WHAT: str
    """What it is, in words."""
    BESIDE: tuple[str, ...]
    """Texts to score beside the reviews, of which ``priors`` are made."""

    def scorer(
        self,
        card: "Asked",
        model: Any,
        tokenizer: Any,
        names: list[str],
        examples: Sequence[tuple[str, int]] = (),
    ) -> "Scorer":
        """What predicts with a model.

        Args:
            card: what its card says of how it is asked.
            model: as loaded.
            tokenizer: its tokenizer.
            names: of the classes.
            examples: (review, class) to show in the prompt.
        """
        ...

    def examples(
        self, card: "Asked", train: "Callable[[], tuple[list[str], Array]]", classes: int, seed: int
    ) -> list[tuple[str, int]]:
        """(review, class) to show in the prompt, drawn by ``seed`` from the reviews and labels that ``train`` reads."""
        ...

    def priors(self, logp: "Array", beside: "Array", valid: "Array") -> "dict[str, Array]":
        """Predictions with a prior taken away, by the prior's name.

        Args:
            logp: (reviews, classes) natural logarithms of the probabilities.
            beside: (texts, classes) the same of :attr:`BESIDE`.
            valid: (reviews,) which are validation.
        """
        ...

    def rows(
        self, card: "Asked", tokenizer: Any, names: list[str], texts: Sequence[str], labels: Sequence[int]
    ) -> tuple[list[Row], int]:
        """Reviews to train on, read as predictions read them; how many were cut."""
        ...

    def collator(self, model: Any, tokenizer: Any) -> "Callable[[list[Row]], dict[str, torch.Tensor]]":
        """Makes a batch of rows: the model's arguments, and ``labels``."""
        ...

    def losses(self, model: Any, batch: dict[str, Any]) -> "tuple[torch.Tensor, torch.Tensor]":
        """(reviews,) negative log-likelihoods of the answers, and whether each is the model's own choice, token by token."""
        ...


def module(name: str) -> str:
    """The module of a family, which jobs load by name: they depend on their own family's code, on no other's."""
    return f"mllm.models.families.{name}"


def load(name: str) -> Family:
    """A family by its name."""
    return cast(Family, import_module(module(name)))


def maker(source: str) -> str:
    """The module that makes a base of a model's source, loaded by name as well."""
    return "mllm.models.scratch" if source == "scratch" else "mllm.models.pretrained"
