"""States of the layers that a training freezes, computed once for all epochs, on a CPU."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from mllm.core import gpu
from mllm.core.messages import log
from mllm.models import families, processes
from mllm.models.families import Row
from mllm.models.frozen import Frozen
from mllm.models.training_rows import Reviews

LARGEST = 2**30  # bytes of states that are kept; reviews with more are computed anew in each epoch
AT_ONCE = 32  # reviews


def remembered(still: Frozen, model: Any, tokenizer: Any, reviews: Reviews, family: str) -> Reviews:
    """The reviews with ``states`` in each row: (tokens, width), what the last frozen layer makes of it.

    The reviews as they are where a GPU computes, for several processes, for all but classifiers, for T5, whose first layer
    also makes the other layers' position bias, and where states take more than ``LARGEST``.
    """
    rows = [*reviews.train, *reviews.valid]
    size = 4 * model.config.hidden_size * sum(len(row["input_ids"]) for row in rows)
    fits = family == families.HEADED and not model.config.is_encoder_decoder and size <= LARGEST
    if not fits or gpu.device() == "cuda" or processes.count() > 1:
        return reviews
    log.info("computing the states of %s frozen layers once, %.0f MB", len(still.layers), size / 2**20)
    states = _states(model.eval(), still.layers[-1], families.load(family).collator(model, tokenizer), rows)
    rows = [{**row, "states": own} for row, own in zip(rows, states, strict=True)]
    return replace(reviews, train=rows[: len(reviews.train)], valid=rows[len(reviews.train) :])


class _Reached(Exception):
    """The last frozen layer has answered; the others need not."""


def _states(
    model: Any, last: Any, collate: Callable[[list[Row]], dict[str, torch.Tensor]], rows: list[Row]
) -> list[torch.Tensor]:
    """(tokens, width) of each row: the states that a layer returns, without what is padding."""
    found: dict[int, torch.Tensor] = {}
    seen: list[torch.Tensor] = []

    def stop(_: Any, __: Any, output: torch.Tensor) -> None:
        seen.append(output)
        raise _Reached

    hook = last.register_forward_hook(stop)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))
    with torch.no_grad():
        for start in range(0, len(order), AT_ONCE):
            chosen = order[start : start + AT_ONCE]
            batch = {k: v for k, v in collate([rows[i] for i in chosen]).items() if k != "labels"}
            try:
                model(**batch)
            except _Reached:
                found |= {
                    i: own[: len(rows[i]["input_ids"])].clone() for i, own in zip(chosen, seen.pop(), strict=True)
                }
    hook.remove()
    return [found[i] for i in range(len(rows))]
