"""By-products never fail a prediction: figures that cannot be counted stay empty, and damaged files are replaced."""

import numpy as np
import torch
from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

from mllm.core import files
from mllm.models import scratch, tokens
from mllm.models.families.classifier import ClassifierScorer
from mllm.prediction import speed
from tiny_models import tiny_bert


class Unable:
    """Make a scorer of an architecture on which torch's counter fails."""

    def __init__(self):
        self.model = torch.nn.Linear(2, 2)
        self.model.get_experts_implementation = lambda: "eager"
        self.model.set_experts_implementation = lambda how: None

    def score(self, batch):
        raise TypeError("linear(): argument 'weight' must be Tensor, not Parameter")


def test_operations_that_cannot_be_counted_stay_empty_and_are_said(caplog):
    assert speed.counted_flops(Unable(), tokens.Tokens(np.array([3, 4], np.int32), np.array([2]), 0)) is None
    assert "operations cannot be counted, and are left empty: TypeError: linear()" in caplog.text


def test_a_deberta_s_operations_are_counted():
    """Its layers pass a Parameter directly to a module; the counter's hooks fail on this."""
    config = DebertaV2Config(
        vocab_size=300, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48, num_labels=3,
        max_position_embeddings=40, relative_attention=True, pos_att_type=["c2p", "p2c"], position_buckets=8, pad_token_id=1,
    )  # fmt: skip
    tokenizer = scratch.train_tokenizer(["some words to read, and some more"] * 3, 300, 16)
    scorer = ClassifierScorer(DebertaV2ForSequenceClassification(config), tokenizer)
    assert speed.counted_flops(scorer, tokens.encode(scorer, ["some words", "more"])) > 0


def test_a_damaged_file_of_costs_is_measured_again(tmp_path):
    assert files.once(tmp_path, "flops", ["a"], lambda: 3) == files.once(tmp_path, "flops", ["a"], lambda: 4) == 3
    next(tmp_path.glob("flops-*.json")).write_text("{")
    assert files.once(tmp_path, "flops", ["a"], lambda: 5) == files.once(tmp_path, "flops", ["a"], lambda: 6) == 5


def test_damaged_shared_tokens_are_made_again(tmp_path):
    tokenizer = scratch.train_tokenizer(["some words to read, and some more"] * 3, 300, 16)
    scorer = ClassifierScorer(tiny_bert(), tokenizer)
    first = tokens.shared(scorer, ["some words", "more"], tmp_path, "code")
    (file,) = tmp_path.glob("*.npz")
    for damage in (b"", b"PK\x03\x04 cut", file.read_bytes()[:-30]):
        file.write_bytes(damage)
        again = tokens.shared(scorer, ["some words", "more"], tmp_path, "code")
        assert (again.flat == first.flat).all() and (again.ends == first.ends).all()
