"""Prepare the rows of a training: tokens with their answers and weights, and the order of their batches."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from mllm.core.errors import Failure
from mllm.data import labelled, splitting
from mllm.data.labels import label_column
from mllm.models import families
from mllm.models.cards import Asked
from mllm.models.families import Row
from mllm.models.tokenizers import check_distinct

VALIDATION = 1000  # reviews at most: watching a training needs fewer reviews than judging candidates


@dataclass(frozen=True)
class Reviews:
    """The reviews of a training.

    Args:
        train: rows to learn from.
        valid: rows of validation to watch it by, sorted by length.
        cut: number of train reviews that were too long.
    """

    train: list[Row]
    valid: list[Row]
    cut: int


def reviews_of(data: Path, task: str, part: dict[str, Any]) -> dict[str, pl.DataFrame]:
    """Return the ``train`` reviews of a training's part, and the ``valid`` reviews of its slice, with the task's labels.

    Args:
        data: folder of the split.
        task: the task to learn.
        part: see :func:`mllm.data.splitting.select_part`.
    """
    slice_ = {k: v for k, v in part.items() if k == "where"}
    train, valid = (labelled.with_labels(data, split, task) for split in ("train", "valid"))
    return {
        "train": splitting.select_part(train, part, task),
        "valid": splitting.select_part(valid, slice_, task, strict=False),
    }


def digests(reviews: dict[str, pl.DataFrame], task: str) -> list[str]:
    """Return digests of the ``train`` and ``valid`` reviews as a training reads them: other columns only choose rows."""
    read = ["review_id", "group", "review", label_column(task)]
    return [labelled.digest(reviews[split].select(read)) for split in ("train", "valid")]


def prepare(
    parts: dict[str, pl.DataFrame], names: list[str], tokenizer: Any, card: Asked, hyper: dict[str, Any]
) -> Reviews:
    """Return tokens, answer and weight of each labelled review.

    Args:
        parts: ``train`` and ``valid`` reviews with the task's label column; rows without a label are left out.
        names: names of the task's classes.
        tokenizer: the model's tokenizer; its ``model_max_length`` cuts longer reviews.
        card: the base's card, which says how it is asked.
        hyper: the training's hyper-parameters; only ``seed`` and ``class_weights`` count here.

    Raises:
        Failure: no train review has a label.
    """
    label = label_column(card["task"])
    parts = {split: rows.filter(pl.col(label).is_not_null()) for split, rows in parts.items()}
    if not parts["train"].height:
        raise Failure(f"task {card['task']!r}: the expert's reviews have no labels")
    frames = {
        "train": parts["train"],
        "valid": parts["valid"].sample(min(VALIDATION, parts["valid"].height), seed=hyper["seed"], shuffle=True),
    }
    by_class = class_weights(frames["train"][label].to_numpy(), len(names), hyper.get("class_weights"))
    read = families.load(card["family"]).rows
    rows, cut = {}, {}
    for split, frame in frames.items():
        labels = frame[label].to_list()
        rows[split], cut[split] = read(card, tokenizer, names, frame["review"].to_list(), labels)
        for row, k in zip(rows[split], labels, strict=True):
            row["weight"] = float(by_class[k])
    check_distinct([row["input_ids"] for row in rows["train"]], frames["train"]["review"].to_list())
    rows["valid"].sort(key=lambda row: len(row["input_ids"]))
    return Reviews(rows["train"], rows["valid"], cut["train"])


def class_weights(labels: np.ndarray, classes: int, how: str | None) -> np.ndarray:
    """Return (classes,) the weight of a review of each class: 1 on average over the reviews.

    Args:
        labels: (reviews,) class indices.
        classes: number of classes.
        how: balanced: in inverse proportion to the class's frequency (scikit-learn's rule); sqrt: to its root; None: 1.
    """
    counts = np.bincount(labels, minlength=classes)
    weights = np.maximum(counts, 1) ** {"balanced": -1.0, "sqrt": -0.5, None: 0.0}[how]
    return np.asarray(weights * counts.sum() / (weights @ counts))


class ByLength(torch.utils.data.Sampler[int]):
    """Batches of reviews of similar length, which need little padding; seed and epoch alone determine their random order.

    Args:
        lengths: lengths of the reviews.
        batch: number of reviews of one step, whatever parts they are computed in.
        seed: the seed of the order.
    """

    def __init__(self, lengths: list[int], batch: int, seed: int):
        self.lengths, self.batch, self.seed, self.epoch = np.array(lengths), batch, seed, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self.lengths))
        pool = 50 * self.batch  # lengths are sorted within it: enough for little padding, far from an order by length
        order = np.concatenate(
            [p[np.argsort(-self.lengths[p], kind="stable")] for p in np.split(order, range(pool, len(order), pool))]
        )
        full = len(order) // self.batch * self.batch
        batches = order[:full].reshape(-1, self.batch)
        return iter(np.append(batches[rng.permutation(len(batches))], order[full:]).tolist())
