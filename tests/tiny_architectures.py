"""Make tiny classifiers of 24 architectures of transformers, each built once per process and saved once per folder."""

import functools

import torch
import transformers
from transformers import AutoConfig, AutoModelForSequenceClassification

from mllm.models.heads import label_config
from tiny_models import LABELS

WIDTH, HEADS, LAYERS, VOCABULARY, POSITIONS = 32, 2, 2, 300, 40
SIZES = {  # an architecture has one of these names
    "vocab_size": VOCABULARY,
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embedding_size", "emb_dim", "word_embed_proj_dim"), WIDTH),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers",
                     "num_decoder_layers"), LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads", "decoder_attention_heads",
                     "num_key_value_heads"), HEADS),
    **dict.fromkeys(("intermediate_size", "d_inner", "hidden_dim", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim", "ffn_dim"), 48),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), POSITIONS),
    "d_kv": 16, "d_head": 16, "head_dim": 16,
}  # fmt: skip
TOKENS = {"pad_token_id": 1, "eos_token_id": 0, "bos_token_id": 0, "cls_token_id": 0, "sep_token_id": 0}
ENDED = ("t5", "bart")
"""Architectures that read their answer at the end token."""
OWN = {
    "bert": {}, "roberta": {}, "distilbert": {}, "albert": {}, "electra": {}, "deberta": {}, "camembert": {}, "xlm-roberta": {},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 8},
    "mpnet": {}, "convbert": {"conv_kernel_size": 3, "head_ratio": 1}, "roformer": {}, "xlnet": {},
    "mobilebert": {"intra_bottleneck_size": 32, "true_hidden_size": 32},
    "modernbert": {"global_attn_every_n_layers": 2, "local_attention": 8, "pad_token_id": 1},
    "t5": {"decoder_start_token_id": 0}, "bart": {},
    "gpt2": {}, "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8}, "opt": {}, "bloom": {},
    "llama": {}, "qwen2": {"layer_types": ["full_attention"] * LAYERS}, "mistral": {},
}  # fmt: skip


@functools.cache
def tiny(kind: str):
    """Make a classifier with random weights, in evaluation mode."""
    assert transformers.__version__
    default = AutoConfig.for_model(kind)
    known = default.to_dict().keys() | default.attribute_map.keys()
    sizes = {key: value for key, value in SIZES.items() if key in known}
    config = AutoConfig.for_model(kind, **{**sizes, **label_config(LABELS), **TOKENS, **OWN[kind]})
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    with torch.no_grad():  # constants, such as those of norms and biases, could not be distinguished
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model
