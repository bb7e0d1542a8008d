"""Prepare a model to predict, with all that its family needs: its card, the classes, its prompt's examples."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mllm.data import labelled
from mllm.models import families
from mllm.models.cards import Asked

if TYPE_CHECKING:
    from mllm.models.scorers import Scorer


def scorer_of(
    card: Asked, model: Any, tokenizer: Any, names: list[str], data: Path, seed: int
) -> "tuple[Scorer, list[tuple[str, int]]]":
    """Return a loaded model's scorer, and the (review, class) examples that its prompt shows.

    Args:
        card: the entries of the model's card that say how it is asked.
        model: the loaded model.
        tokenizer: the model's tokenizer.
        names: class names, as a prompt words them.
        data: folder that split_reviews wrote.
        seed: seed of the draw of examples.
    """
    task = card["task"]

    def train() -> tuple[list[str], Any]:
        rows = labelled.labelled(data, ("train",), task)
        return rows["review"].to_list(), rows["label"]

    family = families.load(card["family"])
    examples = family.examples(card, train, len(names), seed)
    return family.scorer(card, model, tokenizer, names, examples), examples
