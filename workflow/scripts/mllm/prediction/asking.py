"""A model with all that its family needs to predict: its card, the classes, the examples that its prompt shows."""

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
    """What predicts with a loaded model, and the (review, class) examples that it is shown.

    Args:
        card: what its card says of how it is asked.
        model: as loaded.
        tokenizer: its tokenizer.
        names: of the classes, as a prompt words them.
        data: folder that split_reviews wrote.
        seed: of the draw of examples.
    """
    task = card["task"]

    def train() -> tuple[list[str], Any]:
        rows = labelled.labelled(data, ("train",), task)
        return rows["review"].to_list(), rows["label"]

    family = families.load(card["family"])
    examples = family.examples(card, train, len(names), seed)
    return family.scorer(card, model, tokenizer, names, examples), examples
