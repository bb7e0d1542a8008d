"""Make the router of a mixture of experts, from texts by mergekit-moe's functions or at random."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mllm.core.messages import progress
from mllm.merging.mergekit_private import mixtures

if TYPE_CHECKING:
    import torch

RANDOM = ("random", "uniform_random")
GATE_MODES = ("hidden", "hidden_avg", "hidden_last", "cheap_embed", *RANDOM)
EMBEDDING = "model.embed_tokens.weight"


def weights(mode: str, seed: int, average: Path, tokenizer: Any, texts: dict[str, list[str]]) -> "torch.Tensor":
    """Make the router's weights, (layers, experts, width).

    mergekit-moe's command puts a start token before each text. It gives all texts at once, padded and untruncated, to a
    model in bfloat16, and its averages include the padding. Here the model is in float32 and reads one text at a time,
    as the experts do.

    Args:
        mode: one of GATE_MODES.
        seed: for the random modes.
        average: folder of the model that reads the texts.
        tokenizer: that model's tokenizer.
        texts: expert -> its texts.
    """
    import torch

    if mode in RANDOM:
        torch.manual_seed(seed)
        return mixtures.random_router(average, len(texts), tokenizer, mode)
    encoded = {name: tokenizer(several, truncation=True)["input_ids"] for name, several in texts.items()}
    encoded = {name: [ids or [tokenizer.eos_token_id] for ids in several] for name, several in encoded.items()}
    read = _embedded if mode == "cheap_embed" else _hidden
    return torch.stack(read(average, [*encoded.values()], mode), dim=1)


def _embedded(average: Path, encoded: list[list[list[int]]], mode: str) -> "list[torch.Tensor]":
    """Return each expert's weights, (layers, width), made from the embeddings of its texts' tokens."""
    import torch

    reference, found = mixtures.reference(average), []
    embed, layers = reference.lazy_loader().get_tensor(EMBEDDING), reference.config().num_hidden_layers
    for several in encoded:
        # All tokens are one text, with only the embeddings that it uses: mergekit makes a matrix of text × vocabulary.
        used, ids = torch.unique(torch.tensor([i for ids in several for i in ids]), return_inverse=True)
        tokens = {"input_ids": ids[None], "attention_mask": torch.ones_like(ids[None])}
        found.append(mixtures.get_cheap_embedding(embed[used], tokens, layers, len(used)))
    return found


def _hidden(average: Path, encoded: list[list[list[int]]], mode: str) -> "list[torch.Tensor]":
    """Return each expert's weights, (layers, width), made from the model's hidden states for its texts."""
    import torch
    from transformers import BatchEncoding

    from mllm.models.loading import load_body

    model = load_body(average).eval()
    found = []
    for several in progress(encoded, "texts for the router", total=len(encoded), unit="member"):
        batches = [BatchEncoding({"input_ids": torch.tensor([ids])}) for ids in several]
        states = [mixtures.get_hidden_states(model, batch, mode == "hidden_avg") for batch in batches]
        found.append(torch.nn.functional.normalize(torch.stack(states).mean(dim=0), dim=-1))
    return found
