"""Score labels by language models: log-likelihoods of the labels' tokens after the prompt."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module

from mllm.core.arrays import Array
from mllm.core.errors import Failure
from mllm.models import prompts
from mllm.models.cards import Asked
from mllm.models.label_tree import label_tree
from mllm.models.tokens import Batch, Tokens, reading
from mllm.models.transformers_private.devices import hooked

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.5}
"""Tolerance of log-likelihoods near 0, and twice that near -100: rounding errors grow with the numbers. FLAN-T5-small's
shape with random weights showed 1.2e-4 in float32. FLAN-T5-base's showed 0.84 in bfloat16, with steps of 0.5 and more."""


class LanguageModelScorer:
    """The common part of text-to-text and causal models.

    Args:
        model: the model as loaded.
        tokenizer: its tokenizer.
        prompt: the text around a review.
        labels: tokens of each class's answer.
        first: whether only the first tokens decide.
    """

    def __init__(
        self, model: Any, tokenizer: Any, prompt: prompts.Prompt, labels: list[list[int]], first: bool
    ) -> None:
        self.model, self.tokenizer, self.prompt, self.classes = model, tokenizer, prompt, len(labels)
        if first:
            labels = [label[:1] for label in labels]
            if len({label[0] for label in labels}) < len(labels):
                raise Failure(
                    "prompt.score: found first_token, but for this tokenizer two labels begin with the same token. Fix: use"
                    " other words, or score: likelihood"
                )
        self.labels, self.first, self.tree = labels, first, label_tree(labels)
        path = torch.zeros(len(labels), max(map(len, labels)), 2, dtype=torch.long)
        counts = torch.zeros(len(labels), path.shape[1])
        for k, steps in enumerate(self.tree.paths):
            path[k, : len(steps)] = torch.tensor(steps)
            counts[k, : len(steps)] = 1
        self._constants = {"node": path[..., 0], "token": path[..., 1], "first": path[:, 0, 1], "counts": counts}
        self._copies: dict[tuple[str, torch.device], torch.Tensor] = {}
        self._narrow = False

    def _constant(self, name: str, device: torch.device) -> torch.Tensor:
        """Return a constant of all batches on their device; it is copied there once, since each copy waits for the GPU."""
        if (name, device) not in self._copies:
            self._copies[name, device] = self._constants[name].to(device)
        return self._copies[name, device]

    @property
    def outputs(self) -> int:
        vocabulary = self.classes if self.first else self.model.config.get_text_config().vocab_size
        return len(self.tree.depths) * int(vocabulary)

    @property
    def longest(self) -> int:
        raise NotImplementedError

    def encode(self, texts: Sequence[str]) -> tuple[list[list[int]], int]:
        return prompts.encode(self.tokenizer, self.prompt, texts, self.longest)

    def reads_as(self) -> str | None:
        return reading(self.tokenizer, type(self).__name__, self.prompt, self.longest)

    def _likelihoods(self, logits: torch.Tensor) -> torch.Tensor:
        """Return (reviews, labels) scores from (reviews, nodes, vocabulary) logits."""
        if self.first:
            return logits[:, 0, ... if self._narrow else self._constant("first", logits.device)].float()
        node, token, counts = (self._constant(name, logits.device) for name in ("node", "token", "counts"))
        picked = logits.float().log_softmax(-1)[:, node, token]
        return (picked * counts).sum(-1)

    def plain(self, ids: list[int], labels: list[list[int]]) -> torch.Tensor:
        """Return (labels,) log-likelihoods of one review, with one pass per label; ``score`` must agree with them."""
        raise NotImplementedError

    def score(self, batch: Batch) -> torch.Tensor:
        raise NotImplementedError

    def prepare(self, tokens: Tokens) -> None:
        """Compare :meth:`score` with :meth:`plain` on one batch: the shortest review, and two labels of the longest.

        An architecture may be wrong for only one of them. The shorter one reveals models that read padding, the longer
        one models whose tokens see only a limited number of earlier tokens.

        Raises:
            Failure: the scores differ, or the model cannot be asked this way.
        """
        if self.model.dtype != torch.float32:
            self._answer_in_float32()
        every = list(range(len(self.labels)))
        checks = [(int(tokens.lengths.argmin()), every), (int(tokens.lengths.argmax()), sorted({0, every[-1]}))]
        what = type(self.model).__name__
        try:
            together = self.score(tokens.batch([i for i, _ in checks])).cpu()
            alone = [self.plain(tokens[i], [self.labels[k] for k in which]).cpu() for i, which in checks]
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, TypeError) as error:
            raise Failure(
                f"{what}: labels cannot be scored together ({str(error).splitlines()[0]}); this architecture is not"
                " supported (please report it)"
            ) from error
        differences = []
        for (_, which), fast, plain in zip(checks, together, alone, strict=True):
            pair = [fast[which], plain]
            fast, plain = (x.log_softmax(-1) for x in pair) if self.first else pair
            differences.append((fast - plain).abs() / (1 + plain.abs() / 100))
        apart = float(torch.cat(differences).max())
        if not apart <= TOLERANCE.get(self.model.dtype, 0.5):
            raise Failure(
                f"{what}: labels scored together differ by {apart:.3g} from labels scored one by one; this architecture is"
                " not supported, or not for reviews of this length. Fix: try a smaller max_length (please report it)"
            )
        if self.first and not self._narrow:
            self._answer_in_float32(self._constants["first"])
            self._narrow = True

    def _answer_in_float32(self, rows: torch.Tensor | None = None) -> None:
        """Replace the output head: for large logits, as GPT-2's are, bfloat16's steps are 0.25 and more.

        Args:
            rows: the needed rows of the head, or None for all: if only first tokens decide, the others are not needed.
        """
        head = self.model.get_output_embeddings()
        narrow = _Head(1, 1, bias=head.bias is not None)
        for name, values in head.named_parameters():
            picked = values if rows is None else values[rows.to(values.device)]
            kept = picked.detach() if picked.is_cuda else picked.detach().float()
            setattr(narrow, name, torch.nn.Parameter(kept, requires_grad=False))
        if hooked(head):  # with several GPUs, the last layer and the head may be on different ones
            add_hook_to_module(narrow, AlignDevicesHook(execution_device=narrow.weight.device))
        self.model.set_output_embeddings(narrow)


class _Head(torch.nn.Linear):
    """An output head that answers in float32 after layers in any number format.

    GPUs multiply in the layers' format and add up in float32. This is as exact, since products of two bfloat16 numbers
    are exact in float32.
    """

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        if not states.is_cuda or self.weight.dtype == torch.float32:
            return torch.nn.functional.linear(states.float(), self.weight.float(), self.bias)
        found = torch.mm(states.flatten(0, -2), self.weight.T, out_dtype=torch.float32)
        return (found if self.bias is None else found + self.bias).view(*states.shape[:-1], -1)


def log_likelihood(logits: torch.Tensor, label: list[int]) -> torch.Tensor:
    """Return the log-likelihood of a label's tokens from (tokens, vocabulary) logits."""
    return logits.float().log_softmax(-1)[range(len(label)), label].sum()


def token_losses(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (reviews,) negative log-likelihoods of labels, and (reviews,) whether all their tokens are the most likely.

    Args:
        logits: (reviews, tokens, vocabulary).
        labels: (reviews, tokens), -100 where there is no token.
    """
    there = labels != -100
    found = torch.nn.functional.cross_entropy(logits.float().transpose(1, 2), labels, reduction="none")
    return found.sum(-1), ((logits.argmax(-1) == labels) | ~there).all(-1)


def asked(
    card: Asked, tokenizer: Any, names: list[str], spaced: bool, examples: Sequence[tuple[str, int]] = ()
) -> tuple[prompts.Prompt, bool]:
    """Return the prompt of a model's card, and whether only first tokens decide."""
    spec = card["model"]["prompt"]
    return prompts.build(spec, card["task"], names, tokenizer, spaced, examples), spec["score"] == "first_token"


def examples(
    card: Asked, train: Callable[[], tuple[list[str], Array]], classes: int, seed: int
) -> list[tuple[str, int]]:
    """See :class:`mllm.models.families.Family`."""
    number = card["model"]["prompt"]["examples"]
    return prompts.draw_examples(*train(), classes, number, seed) if number else []
