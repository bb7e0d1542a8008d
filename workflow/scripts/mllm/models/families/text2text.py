"""Score and train T5 and mT5 models: an encoder reads the prompt, a decoder gives the answer."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from mllm.core.errors import Failure
from mllm.models import prompts
from mllm.models.cards import Asked
from mllm.models.families import Row
from mllm.models.label_tree import LabelTree
from mllm.models.language_model_scorers import LanguageModelScorer, asked, log_likelihood, token_losses
from mllm.models.language_model_scorers import examples as examples
from mllm.models.prompt_priors import CONTENT_FREE
from mllm.models.prompt_priors import priors as priors
from mllm.models.scorers import Scorer, needed, padded, seen_by_all
from mllm.models.tokens import Batch
from mllm.models.transformers_private.attention import t5_bias

AUTO = "AutoModelForSeq2SeqLM"
WHAT = "a text-to-text model"
BESIDE = CONTENT_FREE


class Text2TextScorer(LanguageModelScorer):
    """Runs the encoder once for each review, then all labels in one pass of the decoder.

    The labels' tree is one decoder sequence, in which each token sees itself and the earlier tokens of its own label. T5
    knows positions only by their distances, so that replacing the sequence's distances by the tree's is enough.
    """

    def __init__(
        self, model: Any, tokenizer: Any, prompt: prompts.Prompt, labels: list[list[int]], first: bool = False
    ):
        super().__init__(model, tokenizer, prompt, labels, first)
        if model.config.model_type not in ("t5", "mt5"):
            raise Failure(f"family text2text: found a model of type {model.config.model_type}, expected t5 or mt5")
        self._constants["nodes"] = torch.tensor([[model.config.decoder_start_token_id, *self.tree.tokens]])
        self._constants["mask"] = _tree_bias(model, self.tree)

    @property
    def longest(self) -> int:
        return self.tokenizer.model_max_length

    def score(self, batch: Batch) -> torch.Tensor:
        ids, whole = padded(batch, self.tokenizer.pad_token_id, self.model.device)
        mask, nodes = needed(whole, batch), self._constant("nodes", ids.device)
        states = self.model.encoder(input_ids=ids, attention_mask=seen_by_all(self.model, mask, ids.shape[1]))
        output = self.model(
            encoder_outputs=states, attention_mask=seen_by_all(self.model, mask, nodes.shape[1]),
            decoder_input_ids=nodes.expand(len(batch), -1), decoder_attention_mask=self._constant("mask", ids.device),
            use_cache=False,
        )  # fmt: skip
        return self._likelihoods(output.logits)

    def plain(self, ids: list[int], labels: list[list[int]]) -> torch.Tensor:
        device, start = self.model.device, self.model.config.decoder_start_token_id
        found = []
        for label in labels:
            decoded = torch.tensor([[start, *label[:-1]]], device=device)
            logits = self.model(
                input_ids=torch.tensor([ids], device=device), decoder_input_ids=decoded, use_cache=False
            ).logits
            found.append(log_likelihood(logits[0], label))
        return torch.stack(found)


def _tree_bias(model: Any, tree: LabelTree) -> torch.Tensor:
    """Return (1, heads, nodes, nodes) to add to T5's attention scores: tree distances replace those of the sequence.

    Nodes that a node does not see get a large negative number.
    """
    with torch.inference_mode():
        wanted, given = t5_bias(model, tree.depths)
        sees = torch.tensor(tree.sees, device=wanted.device)
        # Half of the smallest number: added to a bias of either sign, it stays finite.
        return torch.where(sees, wanted - given, torch.finfo(model.dtype).min / 2).to(model.dtype)


def scorer(
    card: Asked, model: Any, tokenizer: Any, names: list[str], examples: Sequence[tuple[str, int]] = ()
) -> Scorer:
    """See :class:`mllm.models.families.Family`."""
    prompt, first = asked(card, tokenizer, names, False, examples)
    return Text2TextScorer(model, tokenizer, prompt, prompts.answers(tokenizer, prompt, ended=True), first)


def rows(
    card: Asked, tokenizer: Any, names: list[str], texts: Sequence[str], labels: Sequence[int]
) -> tuple[list[Row], int]:
    """See :class:`mllm.models.families.Family`."""
    prompt, _ = asked(card, tokenizer, names, False)
    answers = prompts.answers(tokenizer, prompt, ended=True)
    ids, cut = prompts.encode(tokenizer, prompt, texts, tokenizer.model_max_length)
    return [{"input_ids": row, "answer": answers[label]} for row, label in zip(ids, labels, strict=True)], cut


def collator(model: Any, tokenizer: Any) -> Callable[[list[Row]], dict[str, torch.Tensor]]:
    """See :class:`mllm.models.families.Family`."""
    start, pad = model.config.decoder_start_token_id, tokenizer.pad_token_id

    def collate(batch: list[Row]) -> dict[str, torch.Tensor]:
        ids, mask = padded([row["input_ids"] for row in batch], pad, "cpu")
        labels, _ = padded([row["answer"] for row in batch], -100, "cpu")
        decoded, _ = padded([[start, *row["answer"][:-1]] for row in batch], pad, "cpu")
        return {"input_ids": ids, "attention_mask": mask.long(), "decoder_input_ids": decoded, "labels": labels}

    return collate


def losses(model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """See :class:`mllm.models.families.Family`."""
    labels = batch.pop("labels")
    return token_losses(model(**batch, use_cache=False).logits, labels)
