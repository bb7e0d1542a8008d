"""Define families of models: how a model is loaded, asked for a review's class, and trained. Each family is one file.

This import is light, since the checks of the experiment file need only the names; the families themselves import torch.
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
    """The interface of a family's module."""

    AUTO: str
    """The class of transformers that loads its models."""
    WHAT: str
    """The kind of its models, in words."""
    BESIDE: tuple[str, ...]
    """Texts to score beside the reviews; ``priors`` uses their scores."""

    def scorer(
        self,
        card: "Asked",
        model: Any,
        tokenizer: Any,
        names: list[str],
        examples: Sequence[tuple[str, int]] = (),
    ) -> "Scorer":
        """Return the scorer that predicts with a model.

        Args:
            card: the model's card, which says how it is asked.
            model: the model as loaded.
            tokenizer: its tokenizer.
            names: names of the classes.
            examples: (review, class) to show in the prompt.
        """
        ...

    def examples(
        self, card: "Asked", train: "Callable[[], tuple[list[str], Array]]", classes: int, seed: int
    ) -> list[tuple[str, int]]:
        """Draw (review, class) for the prompt by ``seed``, from the reviews and labels that ``train`` reads."""
        ...

    def priors(self, logp: "Array", beside: "Array", valid: "Array") -> "dict[str, Array]":
        """Return predictions without a prior, by the prior's name.

        Args:
            logp: (reviews, classes) natural logarithms of the probabilities.
            beside: (texts, classes) the same for :attr:`BESIDE`.
            valid: (reviews,) whether each is of validation.
        """
        ...

    def rows(
        self, card: "Asked", tokenizer: Any, names: list[str], texts: Sequence[str], labels: Sequence[int]
    ) -> tuple[list[Row], int]:
        """Return reviews to train on, encoded as for predictions, and the number of cut ones."""
        ...

    def collator(self, model: Any, tokenizer: Any) -> "Callable[[list[Row]], dict[str, torch.Tensor]]":
        """Return a function that makes a batch of rows: the model's arguments, and ``labels``."""
        ...

    def losses(self, model: Any, batch: dict[str, Any]) -> "tuple[torch.Tensor, torch.Tensor]":
        """Return (reviews,) negative log-likelihoods of answers, and whether each is the model's choice, token by token."""
        ...


def module(name: str) -> str:
    """Return the module of a family, which jobs load by name: they depend on their own family's code only."""
    return f"mllm.models.families.{name}"


def load(name: str) -> Family:
    """Load a family by its name."""
    return cast(Family, import_module(module(name)))


def maker(source: str) -> str:
    """Return the module that makes a base from a model's source; it is loaded by name, too."""
    return "mllm.models.scratch" if source == "scratch" else "mllm.models.pretrained"
