"""Compute the states of frozen layers once for all epochs, on a CPU."""

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

LARGEST = 2**30  # bytes of states that are kept; larger states are computed anew in each epoch
AT_ONCE = 32  # reviews


def remembered(still: Frozen, model: Any, tokenizer: Any, reviews: Reviews, family: str) -> Reviews:
    """Return the reviews with ``states`` in each row: (tokens, width), the output of the last frozen layer.

    The reviews stay as they are on a GPU, with several processes, for models that are not classifiers, and if states
    take more than ``LARGEST``. They also stay as they are for T5: its first layer makes the other layers' position bias.
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
    """Raised when the last frozen layer has answered, to skip the other layers."""


def _states(
    model: Any, last: Any, collate: Callable[[list[Row]], dict[str, torch.Tensor]], rows: list[Row]
) -> list[torch.Tensor]:
    """Return (tokens, width) for each row: the states that a layer returns, without padding."""
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
