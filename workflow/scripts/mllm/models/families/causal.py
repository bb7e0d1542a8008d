"""Score and train decoder-only models, which continue a prompt with its answer."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch

from mllm.models import prompts
from mllm.models.cards import Asked
from mllm.models.families import Row
from mllm.models.language_model_scorers import LanguageModelScorer, asked, log_likelihood, token_losses
from mllm.models.language_model_scorers import examples as examples
from mllm.models.prompt_priors import CONTENT_FREE
from mllm.models.prompt_priors import priors as priors
from mllm.models.scorers import Scorer, padded
from mllm.models.tokens import Batch, Tokens

AUTO = "AutoModelForCausalLM"
WHAT = "a causal language model"
BESIDE = CONTENT_FREE
WORTH_KEEPING = 32  # first tokens of all prompts; for fewer, copying keys and values costs as much as it saves


class CausalScorer(LanguageModelScorer):
    """Scores a prompt and, after it, all labels' tokens in one pass, in which a label sees the prompt and itself.

    Prompts are padded on the left, so that all labels are at the end: only they and the prompts' last tokens need logits.
    """

    def __init__(
        self, model: Any, tokenizer: Any, prompt: prompts.Prompt, labels: list[list[int]], first: bool = False
    ):
        super().__init__(model, tokenizer, prompt, labels, first)
        self._prefix: list[int] = []
        self._prefix_cache: Any = None
        # The tree's first node is a prompt's last token, after which the model is first asked.
        self._constants["tokens"] = torch.tensor(self.tree.tokens, dtype=torch.long)
        self._constants["depths"] = torch.tensor(self.tree.depths)[1:]
        self._constants["sees"] = torch.tensor(self.tree.sees)[1:, 1:]

    @property
    def longest(self) -> int:
        return longest(self.tokenizer, self.labels)

    def encode(self, texts: Sequence[str]) -> tuple[list[list[int]], int]:
        return encode(self.tokenizer, self.prompt, texts, self.longest)

    def prepare(self, tokens: Tokens) -> None:
        begins = tokens.ends - tokens.lengths
        shared: list[int] = []
        while len(shared) < tokens.lengths.min() - 2:  # each review has further tokens
            column = tokens.flat[begins + len(shared)]
            if (column != column[0]).any():
                break
            shared.append(int(column[0]))
        self._prefix, self._prefix_cache = (shared if len(shared) >= WORTH_KEEPING else []), None
        super().prepare(tokens)

    def _known(self, batch: Batch) -> tuple[int, Any]:
        """Return the number of tokens already computed, and their keys and values, repeated for each review of the batch.

        Instructions and examples at the beginning of all prompts are computed once for all reviews.
        """
        size = len(self._prefix)
        if not size or not batch.begin_with(self._prefix):
            return 0, None
        if self._prefix_cache is None:
            ids = torch.tensor([self._prefix], device=self.model.device)
            self._prefix_cache = self.model.get_decoder()(input_ids=ids, use_cache=True).past_key_values
        cache = copy.deepcopy(self._prefix_cache)
        cache.batch_repeat_interleave(len(batch))
        return size, cache

    def score(self, batch: Batch) -> torch.Tensor:
        batch = Batch.of(batch)
        known, cache = self._known(batch)
        device = self.model.device
        ids, mask = padded(batch.without_first(known), self.tokenizer.pad_token_id or 0, device, left=True)
        tokens, depths, own = (self._constant(name, device) for name in ("tokens", "depths", "sees"))
        size, length, labels = len(batch), ids.shape[1], len(tokens)
        lengths = known + mask.sum(1, keepdim=True)
        positions = torch.cat([known + (mask.cumsum(1) - 1).clamp(min=0), lengths - 1 + depths], dim=1)
        # Rows see columns: the known tokens, the prompt up to themselves, and their own label.
        sees = torch.ones(length + labels, known + length + labels, dtype=torch.bool, device=device).tril(known)
        sees[length:, known + length :] = own
        there = torch.cat([mask.new_ones(size, known), mask, mask.new_ones(size, labels)], dim=1)
        # Padding sees itself, or attention divides by 0.
        alone = torch.eye(*sees.shape, dtype=torch.bool, device=device).roll(known, 1)
        dtype = self.model.dtype
        hidden = ~(sees & there[:, None] | alone)
        bias = torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill_(hidden, torch.finfo(dtype).min)
        output = self.model(
            input_ids=torch.cat([ids, tokens.expand(size, -1)], dim=1),
            position_ids=positions, attention_mask=bias[:, None],
            past_key_values=cache, use_cache=cache is not None, logits_to_keep=labels + 1,
        )  # fmt: skip
        return self._likelihoods(output.logits)

    def plain(self, ids: list[int], labels: list[list[int]]) -> torch.Tensor:
        found = []
        for label in labels:
            whole = torch.tensor([[*ids, *label[:-1]]], device=self.model.device)
            logits = self.model(input_ids=whole, use_cache=False).logits
            found.append(log_likelihood(logits[0, len(ids) - 1 :], label))
        return torch.stack(found)


def longest(tokenizer: Any, labels: list[list[int]]) -> int:
    """Return the maximal number of a prompt's tokens, which leaves room for the answer."""
    return int(tokenizer.model_max_length) - max(map(len, labels)) + 1


def encode(tokenizer: Any, prompt: prompts.Prompt, texts: Sequence[str], longest: int) -> tuple[list[list[int]], int]:
    """Encode prompts without the end token that some tokenizers add to every text: the answer is still to follow."""
    plain, whole = (tokenizer("a", add_special_tokens=a)["input_ids"] for a in (False, prompt.special_tokens))
    ends = len(whole) - len(plain) - whole.index(plain[0])
    ids, cut = prompts.encode(tokenizer, prompt, texts, longest)
    return [row[: -ends or None] for row in ids], cut


def scorer(
    card: Asked, model: Any, tokenizer: Any, names: list[str], examples: Sequence[tuple[str, int]] = ()
) -> Scorer:
    """See :class:`mllm.models.families.Family`."""
    prompt, first = asked(card, tokenizer, names, True, examples)
    return CausalScorer(model, tokenizer, prompt, prompts.answers(tokenizer, prompt, ended=False), first)


def rows(
    card: Asked, tokenizer: Any, names: list[str], texts: Sequence[str], labels: Sequence[int]
) -> tuple[list[Row], int]:
    """See :class:`mllm.models.families.Family`."""
    prompt, _ = asked(card, tokenizer, names, True)
    answers = prompts.answers(tokenizer, prompt, ended=False)
    ids, cut = encode(tokenizer, prompt, texts, longest(tokenizer, answers))
    return [
        {"input_ids": [*row, *answers[label][:-1]], "answer": answers[label]}
        for row, label in zip(ids, labels, strict=True)
    ], cut


def collator(model: Any, tokenizer: Any) -> Callable[[list[Row]], dict[str, torch.Tensor]]:
    """See :class:`mllm.models.families.Family`. Rows are padded on the left: only their ends, the answers, need logits."""
    pad = tokenizer.pad_token_id or 0

    def collate(batch: list[Row]) -> dict[str, torch.Tensor]:
        ids, mask = padded([row["input_ids"][::-1] for row in batch], pad, "cpu")
        labels, _ = padded([row["answer"][::-1] for row in batch], -100, "cpu")
        ids, mask, labels = ids.flip(1), mask.flip(1), labels.flip(1)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        return {"input_ids": ids, "attention_mask": mask.long(), "position_ids": positions, "labels": labels}

    return collate


def losses(model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """See :class:`mllm.models.families.Family`."""
    labels = batch.pop("labels")
    return token_losses(model(**batch, logits_to_keep=labels.shape[1], use_cache=False).logits, labels)
