"""Share the states of layers that trainings freeze: on a CPU, the first candidate computes them for all others.

The base, its experts and their merges share these layers. The file's name is a digest of the layers' weights, the
reviews and their batches. So a candidate that reuses states predicts the same, bit for bit. Some merges change frozen
weights by rounding; they find no such states.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from mllm.core import gpu
from mllm.core.arrays import Array
from mllm.core.messages import log
from mllm.models import families, frozen
from mllm.models.scorers import Scorer
from mllm.models.tokens import Tokens
from mllm.prediction import run_model

LARGEST = 2**30  # bytes: the largest file of states


class FirstLayers:
    """The states of a model's first layers, batch by batch: reused, or recorded.

    Args:
        still: the layers.
        tokens: of all reviews.
        states: (tokens, width) of all reviews, one after the other.
        known: whether the states are computed already.
    """

    def __init__(self, still: frozen.Frozen, tokens: Tokens, states: Array, known: bool) -> None:
        self.still, self.tokens, self.states, self.known = still, tokens, states, known
        self.noted = 0
        """Number of reviews whose states were recorded."""

    @contextmanager
    def around(self, chosen: list[int]) -> Iterator[None]:
        """Reuse or record the states of these reviews, whose batch is scored inside the context."""
        places = [slice(self.tokens.ends[i] - self.tokens.lengths[i], self.tokens.ends[i]) for i in chosen]
        if self.known:
            own = [torch.from_numpy(np.array(self.states[place])) for place in places]
            with self.still.at_rest(frozen.pad(own, int(self.tokens.lengths[chosen].max()))):
                yield
            return
        hook = self.still.layers[-1].register_forward_hook(lambda _, __, output: self._note(places, output))
        try:
            yield
        finally:
            hook.remove()

    def _note(self, places: list[slice], output: torch.Tensor) -> None:
        for place, own in zip(places, output.numpy(), strict=True):
            self.states[place] = own[: place.stop - place.start]
        self.noted += len(places)


@contextmanager
def shared(
    number: int, scorer: Scorer, tokens: Tokens, folder: Path | None, write: bool
) -> Iterator[FirstLayers | None]:
    """Yield the states of a classifier's first layers, or None where they are not shared.

    They are not shared on GPUs, in number formats other than float32, for models with a decoder, or above ``LARGEST``.

    Args:
        number: number of layers, beside the embeddings, that no training changed.
        scorer: a classifier, ready to predict.
        tokens: of the reviews.
        folder: where candidates share such files.
        write: whether other candidates can use the states, so that keeping them is worthwhile.
    """
    model = scorer.model
    width = getattr(model.config, "hidden_size", 0)
    plain = gpu.device() == "cpu" and model.dtype == torch.float32 and not model.config.is_encoder_decoder
    if not (number and folder and plain and width and len(tokens) and 4 * width * len(tokens.flat) <= LARGEST):
        yield None
        return
    still = frozen.part(model, families.HEADED, {"freeze": number})
    assert still
    file = folder / f"states-{_key(still, scorer, tokens)}.npy"
    if file.exists():
        log.info("states of the first %d layers reused from %s", number, file)
        yield FirstLayers(still, tokens, np.load(file, mmap_mode="r"), known=True)
    elif write:
        yield from _kept(file, still, tokens, width)
    else:
        yield None


def _kept(file: Path, still: frozen.Frozen, tokens: Tokens, width: int) -> Iterator[FirstLayers]:
    """Yield states to record; keep the file only if it has all reviews, since a resumed job computes some only."""
    partial = file.with_name(f".{file.name}.partial-{os.getpid()}")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        states = np.lib.format.open_memmap(partial, "w+", np.float32, (len(tokens.flat), width))
        found = FirstLayers(still, tokens, states, known=False)
        yield found
        states.flush()
        if found.noted == len(tokens):
            partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _key(still: frozen.Frozen, scorer: Scorer, tokens: Tokens) -> str:
    """Return a digest of all that determines the states, to the last bit."""
    found = hashlib.sha256()
    for module in still.modules:
        for name, tensor in sorted(module.state_dict().items()):
            found.update(name.encode())
            found.update((tensor + 0).contiguous().numpy().tobytes())  # a merge makes -0 of padding's embedding 0
    for array in (tokens.flat, tokens.ends):
        found.update(np.ascontiguousarray(array).tobytes())
    facts: list[Any] = [
        run_model.batches(scorer, tokens), torch.__version__, transformers.__version__, torch.get_num_threads(),
        torch.backends.cpu.get_cpu_capability(), scorer.model.config.to_dict().get("model_type"),
    ]  # fmt: skip
    found.update(json.dumps(facts).encode())
    return found.hexdigest()[:16]
