"""Decoder-only models: a prompt is continued by its answer."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch

from mllm import prompts
from mllm.families import Row
from mllm.scorers import LanguageModelScorer, Scorer, asked, log_likelihood, padded, token_losses
from mllm.tokens import Tokens

AUTO = "AutoModelForCausalLM"
WHAT = "a causal language model"
WORTH_KEEPING = 32  # tokens at the beginning of all prompts; for fewer, copying keys and values costs what it saves


class CausalScorer(LanguageModelScorer):
    """Decoder-only models: the prompt once for each review, then all labels' tokens from its keys and values."""

    def __init__(
        self, model: Any, tokenizer: Any, prompt: prompts.Prompt, labels: list[list[int]], first: bool = False
    ):
        super().__init__(model, tokenizer, prompt, labels, first)
        self._prefix: list[int] = []
        self._prefix_cache: Any = None
        self._tokens = torch.tensor(self.tree.tokens, dtype=torch.long)
        self._depths = torch.tensor(self.tree.depths)
        self._sees = torch.tensor(self.tree.sees)

    @property
    def longest(self) -> int:
        return longest(self.tokenizer, self.labels)

    def encode(self, texts: Sequence[str]) -> tuple[list[list[int]], int]:
        return encode(self.tokenizer, self.prompt, texts, self.longest)

    def prepare(self, tokens: Tokens) -> None:
        begins = tokens.ends - tokens.lengths
        shared: list[int] = []
        while len(shared) < tokens.lengths.min() - 2:  # each review has some more
            column = tokens.flat[begins + len(shared)]
            if (column != column[0]).any():
                break
            shared.append(int(column[0]))
        self._prefix, self._prefix_cache = (shared if len(shared) >= WORTH_KEEPING else []), None
        super().prepare(tokens)

    def _prompt_cache(self, batch: list[list[int]]) -> tuple[Any, torch.Tensor]:
        """Keys and values of all but the prompts' last tokens, and (reviews, longest) which of them are no padding.

        Instructions and examples that all prompts begin with are computed once for all reviews. What stands after a
        prompt's end is seen by none of its own tokens: padding on the right needs no mask.
        """
        pad, device, decoder, known = self.tokenizer.pad_token_id or 0, self.model.device, self.model.get_decoder(), 0
        cache, size = None, len(self._prefix)
        if size and all(row[:size] == self._prefix and len(row) > size + 1 for row in batch):
            if self._prefix_cache is None:
                ids = torch.tensor([self._prefix], device=device)
                self._prefix_cache = decoder(input_ids=ids, use_cache=True).past_key_values
            cache, known = copy.deepcopy(self._prefix_cache), size
            cache.batch_repeat_interleave(len(batch))
        ids, mask = padded([row[known:-1] or row for row in batch], pad, device)
        cache = decoder(input_ids=ids, past_key_values=cache, use_cache=True).past_key_values
        return cache, torch.cat([mask.new_ones(len(batch), known), mask], dim=1)

    def score(self, batch: list[list[int]]) -> torch.Tensor:
        device, size, nodes = self.model.device, len(batch), len(self._depths)
        # Each prompt's last token is the tree's first node: its next token is the first question.
        cache, mask = self._prompt_cache(batch)
        lengths = torch.tensor([len(row) - 1 for row in batch])
        last = torch.tensor([[row[-1]] for row in batch])
        tree = torch.cat([last, self._tokens.expand(size, -1)], dim=1).to(device)
        mask &= (lengths > 0)[:, None].to(device)
        sees = torch.cat([mask[:, None].expand(-1, nodes, -1), self._sees.to(device).expand(size, -1, -1)], dim=2)
        bias = torch.where(sees, 0.0, torch.finfo(self.model.dtype).min).to(self.model.dtype)
        output = self.model(
            input_ids=tree, position_ids=(lengths[:, None] + self._depths).to(device), past_key_values=cache,
            attention_mask=bias[:, None], use_cache=True,
        )  # fmt: skip
        return self._likelihoods(output.logits)

    def plain(self, ids: list[int]) -> torch.Tensor:
        found = []
        for label in self.labels:
            whole = torch.tensor([[*ids, *label[:-1]]], device=self.model.device)
            logits = self.model(input_ids=whole, use_cache=False).logits
            found.append(log_likelihood(logits[0, len(ids) - 1 :], label))
        return torch.stack(found)


def longest(tokenizer: Any, labels: list[list[int]]) -> int:
    """Tokens of a prompt at most: there has to be room for the answer."""
    return int(tokenizer.model_max_length) - max(map(len, labels)) + 1


def encode(tokenizer: Any, prompt: prompts.Prompt, texts: Sequence[str], longest: int) -> tuple[list[list[int]], int]:
    """Prompts' tokens without an end, which some tokenizers give every text: a prompt is not at its end yet."""
    plain, whole = (tokenizer("a", add_special_tokens=a)["input_ids"] for a in (False, prompt.special_tokens))
    ends = len(whole) - len(plain) - whole.index(plain[0])
    ids, cut = prompts.encode(tokenizer, prompt, texts, longest)
    return [row[: -ends or None] for row in ids], cut


def scorer(
    card: dict[str, Any], model: Any, tokenizer: Any, names: list[str], examples: Sequence[tuple[str, int]] = ()
) -> Scorer:
    """See :class:`mllm.families.Family`."""
    prompt, first = asked(card, tokenizer, names, True, examples)
    return CausalScorer(model, tokenizer, prompt, prompts.answers(tokenizer, prompt, ended=False), first)


def rows(
    card: dict[str, Any], tokenizer: Any, names: list[str], texts: Sequence[str], labels: Sequence[int]
) -> tuple[list[Row], int]:
    """See :class:`mllm.families.Family`."""
    prompt, _ = asked(card, tokenizer, names, True)
    answers = prompts.answers(tokenizer, prompt, ended=False)
    ids, cut = encode(tokenizer, prompt, texts, longest(tokenizer, answers))
    return [
        {"input_ids": [*row, *answers[label][:-1]], "answer": answers[label]}
        for row, label in zip(ids, labels, strict=True)
    ], cut


def collator(model: Any, tokenizer: Any) -> Callable[[list[Row]], dict[str, torch.Tensor]]:
    """See :class:`mllm.families.Family`. Padded on the left: answers stand together at the end, and only they need logits."""
    pad = tokenizer.pad_token_id or 0

    def collate(batch: list[Row]) -> dict[str, torch.Tensor]:
        ids, mask = padded([row["input_ids"][::-1] for row in batch], pad, "cpu")
        labels, _ = padded([row["answer"][::-1] for row in batch], -100, "cpu")
        ids, mask, labels = ids.flip(1), mask.flip(1), labels.flip(1)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        return {"input_ids": ids, "attention_mask": mask.long(), "position_ids": positions, "labels": labels}

    return collate


def losses(model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """See :class:`mllm.families.Family`."""
    labels = batch.pop("labels")
    return token_losses(model(**batch, logits_to_keep=labels.shape[1], use_cache=False).logits, labels)
