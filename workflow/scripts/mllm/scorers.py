"""Scorers: what each family does with a batch of reviews to get one score per class.

A language model's score of a label is the log-likelihood of all its tokens after the prompt. The prompt is computed once
for all labels, and what labels have in common once, too (see :mod:`mllm.label_tree`). Equal to scoring each label by
itself, which :meth:`prepare` checks on the model at hand, since an architecture may count its positions otherwise.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch

from mllm import prompts
from mllm.classifiers import ClassifierScorer, Scorer, needed, padded
from mllm.cli import Failure
from mllm.label_tree import LabelTree, label_tree
from mllm.tokens import Tokens, reading

TOLERANCE = {
    torch.float32: 1e-3,
    torch.bfloat16: 0.5,
}  # of log-likelihoods; on FLAN-T5-small's shape with random weights 1.2e-4 was seen

WORTH_KEEPING = 32  # tokens at the beginning of all prompts; for fewer, copying keys and values costs what it saves


class _LanguageModelScorer:
    def __init__(
        self, model: Any, tokenizer: Any, prompt: prompts.Prompt, labels: list[list[int]], first: bool
    ) -> None:
        self.model, self.tokenizer, self.prompt, self.classes = model, tokenizer, prompt, len(labels)
        if first:
            labels = [label[:1] for label in labels]
            if len({label[0] for label in labels}) < len(labels):
                raise Failure(
                    "prompt.score: first_token, but for this tokenizer two labels begin with the same token; take other"
                    " words, or score: likelihood"
                )
        self.labels, self.first, self.tree = labels, first, label_tree(labels)
        self._path = torch.zeros(len(labels), max(map(len, labels)), 2, dtype=torch.long)
        self._counts = torch.zeros(len(labels), self._path.shape[1])
        for k, path in enumerate(self.tree.paths):
            self._path[k, : len(path)] = torch.tensor(path)
            self._counts[k, : len(path)] = 1
        self._narrow = False

    @property
    def longest(self) -> int:
        raise NotImplementedError

    def encode(self, texts: Sequence[str]) -> tuple[list[list[int]], int]:
        return prompts.encode(self.tokenizer, self.prompt, texts, self.longest)

    def reads_as(self) -> str | None:
        return reading(self.tokenizer, type(self).__name__, self.prompt, self.longest)

    def _likelihoods(self, logits: torch.Tensor) -> torch.Tensor:
        """(reviews, labels) of (reviews, nodes, vocabulary)."""
        if self.first:
            return logits[:, 0, ... if self._narrow else self._path[:, 0, 1].to(logits.device)].float()
        node, token = self._path.to(logits.device).unbind(-1)
        picked = logits.float().log_softmax(-1)[:, node, token]
        return (picked * self._counts.to(logits.device)).sum(-1)

    def plain(self, ids: list[int]) -> torch.Tensor:
        """(labels,) log-likelihoods of one review, each label by itself: K passes, what ``score`` must agree with."""
        raise NotImplementedError

    def score(self, batch: list[list[int]]) -> torch.Tensor:
        raise NotImplementedError

    def prepare(self, tokens: Tokens) -> None:
        """Compare with :meth:`plain` on the shortest review.

        Raises:
            Failure: they differ.
        """
        ids = tokens[int(tokens.lengths.argmin())]
        fast, plain = self.score([ids])[0].cpu(), self.plain(ids).cpu()
        if self.first:
            fast, plain = fast.log_softmax(-1), plain.log_softmax(-1)
        apart = float((fast - plain).abs().max())
        if not apart <= TOLERANCE.get(self.model.dtype, 0.5):
            raise Failure(
                f"{type(self.model).__name__}: labels scored together differ by {apart:.3g} from each by itself; this"
                " architecture is not supported (please report it)"
            )
        if self.first and not self._narrow:
            self._keep_needed_rows()

    def _keep_needed_rows(self) -> None:
        """Among the first tokens alone, no other row of the output head is needed."""
        head, rows = self.model.get_output_embeddings(), self._path[:, 0, 1]
        narrow = torch.nn.Linear(1, 1, bias=head.bias is not None)
        for name, values in head.named_parameters():
            setattr(narrow, name, torch.nn.Parameter(values[rows.to(values.device)], requires_grad=False))
        self.model.set_output_embeddings(narrow)
        self._narrow = True


class Text2TextScorer(_LanguageModelScorer):
    """T5 and its kin: the encoder once for each review, then all labels in one pass of the decoder.

    The labels' tree is one decoder sequence, in which each token sees itself and those before it in its own label. T5
    knows positions by their distance alone, so that the tree's distances need only replace the sequence's.
    """

    def __init__(
        self, model: Any, tokenizer: Any, prompt: prompts.Prompt, labels: list[list[int]], first: bool = False
    ):
        super().__init__(model, tokenizer, prompt, labels, first)
        if model.config.model_type not in ("t5", "mt5"):
            raise Failure(f"family text2text: found a model of type {model.config.model_type}, expected t5 or mt5")
        self._nodes = torch.tensor([[model.config.decoder_start_token_id, *self.tree.tokens]], device=model.device)
        self._mask = _tree_bias(model, self.tree)

    @property
    def longest(self) -> int:
        return self.tokenizer.model_max_length

    def score(self, batch: list[list[int]]) -> torch.Tensor:
        ids, whole = padded(batch, self.tokenizer.pad_token_id, self.model.device)
        mask = needed(whole, batch)
        states = self.model.encoder(input_ids=ids, attention_mask=mask)
        output = self.model(
            encoder_outputs=states, attention_mask=mask, decoder_input_ids=self._nodes.expand(len(batch), -1),
            decoder_attention_mask=self._mask, use_cache=False,
        )  # fmt: skip
        return self._likelihoods(output.logits)

    def plain(self, ids: list[int]) -> torch.Tensor:
        device, start = self.model.device, self.model.config.decoder_start_token_id
        found = []
        for label in self.labels:
            decoded = torch.tensor([[start, *label[:-1]]], device=device)
            logits = self.model(
                input_ids=torch.tensor([ids], device=device), decoder_input_ids=decoded, use_cache=False
            ).logits
            found.append(_log_likelihood(logits[0], label))
        return torch.stack(found)


class CausalScorer(_LanguageModelScorer):
    """Decoder-only models: the prompt once for each review, then all labels' tokens from its keys and values."""

    def __init__(
        self, model: Any, tokenizer: Any, prompt: prompts.Prompt, labels: list[list[int]], first: bool = False
    ):
        super().__init__(model, tokenizer, prompt, labels, first)
        # Some tokenizers end every text, and a prompt is not at its end yet.
        plain, whole = (tokenizer("a", add_special_tokens=a)["input_ids"] for a in (False, prompt.special_tokens))
        self._ends = len(whole) - len(plain) - whole.index(plain[0])
        self._prefix: list[int] = []
        self._prefix_cache: Any = None
        self._tokens = torch.tensor(self.tree.tokens, dtype=torch.long)
        self._depths = torch.tensor(self.tree.depths)
        self._sees = torch.tensor(self.tree.sees)

    @property
    def longest(self) -> int:
        return self.tokenizer.model_max_length - max(map(len, self.labels)) + 1

    def encode(self, texts: Sequence[str]) -> tuple[list[list[int]], int]:
        ids, cut = super().encode(texts)
        return [row[: -self._ends or None] for row in ids], cut

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
            found.append(_log_likelihood(logits[0, len(ids) - 1 :], label))
        return torch.stack(found)


def build(card: dict[str, Any], model: Any, tokenizer: Any, names: list[str], examples: Any = ()) -> Scorer:
    """The scorer of a model's family.

    Args:
        card: its model.json: family, and what the experiment says of the model.
        model: as loaded.
        tokenizer: its tokenizer.
        names: class names.
        examples: (review, class) to show in the prompt.
    """
    family = card.get("family", "classifier")
    if family == "classifier":
        return ClassifierScorer(model, tokenizer)
    spec = card["model"]["prompt"]
    prompt = prompts.build(spec, card["task"], names, tokenizer, family == "causal", examples)
    first = spec["score"] == "first_token"
    # A text-to-text model ends its answer.
    labels = prompts.answers(tokenizer, prompt, ended=family == "text2text")
    kind = CausalScorer if family == "causal" else Text2TextScorer
    return kind(model, tokenizer, prompt, labels, first)


def _log_likelihood(logits: torch.Tensor, label: list[int]) -> torch.Tensor:
    return logits.float().log_softmax(-1)[range(len(label)), label].sum()


def _tree_bias(model: Any, tree: LabelTree) -> torch.Tensor:
    """(1, heads, nodes, nodes) to add to T5's attention scores: tree distances instead of the sequence's; what is not seen."""
    attention = model.decoder.block[0].layer[0].SelfAttention
    device = attention.relative_attention_bias.weight.device
    depth = torch.tensor(tree.depths, device=device)
    bucket = attention._relative_position_bucket(
        depth[None, :] - depth[:, None],
        bidirectional=False,
        num_buckets=attention.relative_attention_num_buckets,
        max_distance=attention.relative_attention_max_distance,
    )
    with torch.inference_mode():
        wanted = attention.relative_attention_bias(bucket).permute(2, 0, 1)[None]
        given = attention.compute_bias(len(depth), len(depth), device=device)
        sees = torch.tensor(tree.sees, device=device)
        # Half of the smallest number: added to a bias of either sign, it stays finite.
        return torch.where(sees, wanted - given, torch.finfo(model.dtype).min / 2).to(model.dtype)
