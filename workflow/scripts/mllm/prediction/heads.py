"""Score several tasks with classifiers that share a backbone: one pass answers all tasks."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from mllm.models import loading
from mllm.models.cards import Asked
from mllm.models.families import HEADED, load
from mllm.models.scorers import Scorer
from mllm.models.tokens import Batch, Tokens


class HeadsScorer:
    """Several classifiers' heads on the backbone of the first.

    Args:
        scorers: of the tasks; their models share the backbone's module.
    """

    def __init__(self, scorers: Sequence[Scorer]) -> None:
        self.scorers = list(scorers)
        self.model = self.scorers[0].model
        self.sizes = [scorer.classes for scorer in self.scorers]
        """Number of classes of each task; each task has its own distribution."""
        self.classes = self.outputs = sum(self.sizes)
        # As submodules, the other heads are moved, fused and counted with the first model.
        self.model.add_module("of_other_tasks", torch.nn.ModuleList(s.model for s in self.scorers[1:]))
        body = getattr(self.model, self.model.base_model_prefix)
        self._once = _Once(body.forward)
        body.forward = self._once

    def encode(self, texts: Sequence[str]) -> tuple[list[list[int]], int]:
        return self.scorers[0].encode(texts)

    def reads_as(self) -> str | None:
        return self.scorers[0].reads_as()

    def score(self, batch: Batch) -> torch.Tensor:
        self._once.forget()
        return torch.cat([scorer.score(batch) for scorer in self.scorers], dim=-1)

    def prepare(self, tokens: Tokens) -> None:
        for scorer in self.scorers:
            scorer.prepare(tokens)


class _Once:
    """A forward pass that is computed for the first head of a batch, and reused by the others."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        self._forward, self._found = forward, None

    def forget(self) -> None:
        self._found = None

    def __call__(self, *values: Any, **named: Any) -> Any:
        if self._found is None:
            self._found = self._forward(*values, **named)
        return self._found


def load_together(folders: Sequence[Path], **how: Any) -> tuple[list[Any], Any]:
    """Load the models of several folders that share a backbone, which is loaded once, and their tokenizer.

    Args:
        folders: of the same model for several tasks.
        how: as in :func:`mllm.models.loading.load_model`.

    Raises:
        Failure: as in load_model.
    """
    first, tokenizer = loading.load_model(folders[0], HEADED, **how)
    prefix = first.base_model_prefix
    models = [first]
    for folder in folders[1:]:
        model = loading.without_weights(folder, HEADED)
        setattr(model, prefix, getattr(first, prefix))
        own = {n: t for n, t in loading.read_state(folder).items() if not n.startswith(f"{prefix}.")}
        there = {n: t.to(first.get_parameter(n).device, first.dtype) for n, t in own.items()}
        model.load_state_dict(there, strict=False, assign=True)
        models.append(model)
    return models, tokenizer


def scorer_of(cards: Sequence[Asked], models: Sequence[Any], tokenizer: Any, names: Sequence[list[str]]) -> HeadsScorer:
    """Return a scorer of several tasks, from models that share a backbone."""
    family = load(HEADED)
    return HeadsScorer([family.scorer(c, m, tokenizer, n) for c, m, n in zip(cards, models, names, strict=True)])
