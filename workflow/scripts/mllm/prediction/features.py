"""Compute frozen features of texts: the mean of a model's last hidden states, without any head."""

from typing import Any

import numpy as np
import torch

from mllm.core import gpu
from mllm.core.arrays import Array
from mllm.core.messages import progress
from mllm.models.scorers import padded
from mllm.models.tokens import Tokens

REVIEWS = 32  # at once, of similar length


def of_texts(model: Any, tokens: Tokens) -> Array:
    """Average the last hidden states over each text's tokens, (texts, hidden) float32.

    Args:
        model: a sequence classifier; its head is not used.
        tokens: of the texts.
    """
    model.to(gpu.device()).eval()
    order = np.argsort(-tokens.lengths, kind="stable")
    found: Array | None = None
    with torch.inference_mode():
        for first in progress(range(0, len(order), REVIEWS), "features"):
            rows = order[first : first + REVIEWS]
            ids, mask = padded(tokens.batch(rows.tolist()), model.config.pad_token_id or 0, model.device)
            states = model.base_model(input_ids=ids, attention_mask=mask.long()).last_hidden_state.float()
            mean = (states * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
            found = np.empty((len(order), mean.shape[1]), dtype=np.float32) if found is None else found
            found[rows] = mean.cpu().numpy()
    return np.empty((0, 0), dtype=np.float32) if found is None else found
