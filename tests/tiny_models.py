"""Make tiny models of five families, and recipes for them, for several tests."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    T5ForSequenceClassification,
)  # fmt: skip

from mllm.experiment import merge_entries, recipes
from mllm.models import cards, checkpoint_files, tokens
from mllm.models.heads import label_config
from mllm.models.scratch import train_tokenizer
from mllm.prediction import run_model

LABELS = ["negative", "neutral", "positive"]
MEMBERS = ["a", "b", "c"]
CARD = cards.Base(family="classifier", model={}, task="t", seed=0)


def tiny_gpt2():
    config = GPT2Config(
        vocab_size=300, n_positions=16, n_embd=32, n_layer=2, n_head=2, pad_token_id=1, **label_config(LABELS)
    )
    return GPT2ForSequenceClassification(config)


def tiny_bert():
    config = BertConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=16, **label_config(LABELS),
    )  # fmt: skip
    return BertForSequenceClassification(config)


def tiny_llama():
    config = LlamaConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=48, max_position_embeddings=16, tie_word_embeddings=False,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def t5_config(**more):
    return T5Config(
        vocab_size=300, d_model=32, d_kv=16, d_ff=48, num_layers=2, num_decoder_layers=2, num_heads=2,
        feed_forward_proj="gated-gelu", decoder_start_token_id=0, **more,
    )  # fmt: skip


def tiny_t5():
    """Return FLAN-T5's shape; its head becomes a separate matrix when the weights are written."""
    return T5ForConditionalGeneration(t5_config())


def tiny_t5_classifier():
    return T5ForSequenceClassification(t5_config(**label_config(LABELS)))


FAMILIES = {
    "gpt2 classifier": tiny_gpt2, "bert classifier": tiny_bert, "llama": tiny_llama, "flan-t5 untied": tiny_t5,
    "t5 classifier": tiny_t5_classifier,
}  # fmt: skip


def make_models(architecture, folder: Path, dtype=torch.float32) -> Path:
    """Write a base and three experts near it as folders."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["some words to make a vocabulary of"] * 3, 300, 16)
    model = architecture()
    checkpoint_files.save(model, tokenizer, folder / "base", CARD)
    file = folder / "base/model.safetensors"
    state = load_file(file)
    if architecture is tiny_t5:
        state["lm_head.weight"] = torch.randn_like(state["shared.weight"])
    for name in ("base", *MEMBERS):
        if name != "base":
            checkpoint_files.save(model, tokenizer, folder / name, CARD)
        noise = {k: 0.02 * torch.randn_like(v) if name != "base" else 0.0 for k, v in state.items()}
        own = {k: (v + noise[k]).to(dtype) if v.is_floating_point() else v for k, v in state.items()}
        save_file(own, folder / name / "model.safetensors", metadata={"format": "pt"})
    return folder


def recipe_of(values: dict) -> dict:
    entry = merge_entries.METHODS[values["method"]].model_validate({"members": MEMBERS, **values})
    (recipe,) = recipes.expand(entry, entry.members, 17, "base")
    return recipe.canonical()


def predicted(scorer, texts, shards=None):
    """Return the log-probabilities of texts."""
    return run_model.log_probabilities(scorer, tokens.encode(scorer, texts), shards)
