"""Load checkpoints with missing or superfluous parts: nothing that a result depends on is invented."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    RobertaConfig,
    RobertaForMaskedLM,
    T5Config,
    T5ForConditionalGeneration,
)

from mllm.core.errors import Failure
from mllm.merging import compatibility
from mllm.models import loading, pretrained, scratch, tokenizers
from tiny_models import LABELS, t5_config, tiny_bert, tiny_gpt2, tiny_llama

TEXTS = ["it helped me and the pain went away", "no effect at all, only a headache", "I sleep better now"] * 9
BERT = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
        "max_position_embeddings": 40}  # fmt: skip


def checkpoint(folder: Path, model, tokenizer: bool = True) -> Path:
    model.save_pretrained(folder)
    if tokenizer:
        ended = model.config.is_encoder_decoder  # a T5's classifier reads its answer at the end
        scratch.train_tokenizer(TEXTS, 300, 16, ended).save_pretrained(folder)
    return folder


def rewrite(folder: Path, change) -> Path:
    """Rewrite a checkpoint's tensors with a change."""
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    return folder


MODELS = {
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=300, n_positions=16, n_embd=32, n_layer=2, n_head=2)),
    "bert": lambda: BertForMaskedLM(BertConfig(**BERT)),
    "roberta": lambda: RobertaForMaskedLM(RobertaConfig(**BERT)),
    "llama": tiny_llama,
    "t5": lambda: T5ForConditionalGeneration(t5_config(eos_token_id=0)),
}


# ── Tokenizers ──


@pytest.mark.parametrize("kind", ["gpt2", "bert", "t5"])
def test_a_missing_tokenizer_is_not_invented(tmp_path, kind):
    folder = checkpoint(tmp_path / "M", MODELS[kind](), tokenizer=False)
    for load in (
        lambda: pretrained.from_checkpoint(folder, "classifier", LABELS, 16, 1),
        lambda: loading.load_tokenizer(folder),
    ):
        with pytest.raises(Failure, match=r"M: no tokenizer \(tokenizer.json, vocab.json, vocab.txt"):
            load()


def test_half_a_tokenizer_an_unreadable_one_and_one_without_words_are_refused(tmp_path):
    folder = checkpoint(tmp_path / "M", MODELS["gpt2"](), tokenizer=False)
    characters = {c: i for i, c in enumerate(["<|endoftext|>", *"abcdefghijklmnopqrstuvwxyz"])}
    (folder / "vocab.json").write_text(json.dumps(characters))
    with pytest.raises(Failure, match=r"a part of its tokenizer is missing: merges.txt"):
        tokenizers.load_tokenizer(folder)
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizers.load_tokenizer(folder)
    (folder / "tokenizer.json").write_text('{"version": "9.0", "model": {"type": "Future"}}')
    with pytest.raises(Failure, match=r"its tokenizer \(tokenizer.json\) cannot be read by tokenizers"):
        tokenizers.load_tokenizer(folder)
    words = checkpoint(tmp_path / "W", MODELS["bert"](), tokenizer=False)
    (words / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
    with pytest.raises(Failure, match=r"W: its tokenizer \(vocab.txt\) gives 9 sample texts the same tokens"):
        tokenizers.load_tokenizer(words)


def test_a_tokenizer_of_bytes_has_no_file_of_words(tmp_path):
    from transformers import ByT5Tokenizer

    ByT5Tokenizer().save_pretrained(tmp_path)
    assert tokenizers.load_tokenizer(tmp_path)("ab")["input_ids"] == [100, 101, 1]


CASED = "The pain went away after 2 days. It made me sick! Ça va mieux. the pain it made HELLO Hello hello"


@pytest.mark.parametrize("config", [False, True])
@pytest.mark.parametrize(
    ("config_class", "other"),
    [
        (BertConfig, "BertTokenizer"),
        (GPT2Config, "GPT2Tokenizer"),
        (RobertaConfig, "RobertaTokenizer"),
        (T5Config, "no class"),
    ],
)
def test_tokens_are_those_of_tokenizer_json(tmp_path, caplog, config_class, other, config):
    """A class's defaults would give other tokens for its words: lower case, other pieces, another order."""
    from tokenizers import BertWordPieceTokenizer

    words = BertWordPieceTokenizer(lowercase=False, strip_accents=False)
    words.train_from_iterator([CASED] * 5, vocab_size=300)
    words.save(str(tmp_path / "tokenizer.json"))
    config_class().save_pretrained(tmp_path)
    if config:
        said = {"pad_token": "[PAD]", "unk_token": "[UNK]", "tokenizer_class": other if "T" in other else "T5Tokenizer"}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(said))
    with caplog.at_level("INFO"):
        found = tokenizers.load_tokenizer(tmp_path)
    for text in (*tokenizers.SAMPLES, *tokenizers.ODD):
        assert found(text)["input_ids"] == words.encode(text).ids
    assert f"tokens are those of its tokenizer.json; {other}" in caplog.text
    assert found.pad_token == ("[PAD]" if config else None)
    found.save_pretrained(tmp_path / "again")
    again = tokenizers.load_tokenizer(tmp_path / "again")
    assert again(CASED)["input_ids"] == words.encode(CASED).ids


def test_different_reviews_that_become_the_same_tokens_are_refused():
    texts = [f"review {i}" for i in range(40)]
    tokenizers.check_distinct([[i] for i in range(40)], texts)
    tokenizers.check_distinct([[0]] * 40, ["the same"] * 40)
    with pytest.raises(Failure, match="40 of 40 different reviews get the same 1 tokens"):
        tokenizers.check_distinct([[0]] * 40, texts)


def test_tokens_without_embeddings_and_nothing_to_pad_with_are_refused(tmp_path):
    folder = checkpoint(tmp_path, MODELS["gpt2"]())
    tokenizer = tokenizers.load_tokenizer(folder)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.add_tokens([f"<{i}>" for i in range(300)])
    tokenizer.save_pretrained(folder)
    with pytest.raises(
        Failure, match=r"its tokenizer numbers tokens up to \d+ \('<299>'\), its embeddings have 300 rows"
    ):
        pretrained.from_checkpoint(folder, "classifier", LABELS, 16, 1)
    tokenizer = scratch.train_tokenizer(TEXTS, 300, 16)
    tokenizer.pad_token = tokenizer.eos_token = tokenizer.bos_token = None
    tokenizer.save_pretrained(folder)
    with pytest.raises(Failure, match="no padding token and no end token"):
        pretrained.from_checkpoint(folder, "classifier", LABELS, 16, 1)


@pytest.mark.parametrize("ending", ["none", "another number", "two"])
def test_a_classifier_that_reads_at_the_end_needs_one(tmp_path, ending):
    folder = checkpoint(tmp_path, MODELS["t5"]())
    if ending == "another number":
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": 7}))
    else:
        tokenizer = scratch.train_tokenizer(TEXTS, 300, 16)
        if ending == "two":
            processor = TemplateProcessing(
                single="<|endoftext|> $A <|endoftext|>", special_tokens=[("<|endoftext|>", 0)]
            )
            tokenizer.backend_tokenizer.post_processor = processor
        tokenizer.save_pretrained(folder)
    with pytest.raises(Failure, match=r"puts no end token \(number [07], eos_token_id in config.json\) after a text"):
        pretrained.from_checkpoint(folder, "classifier", LABELS, 14, 1)
    pretrained.from_checkpoint(folder, "text2text", LABELS, 14, 1)


# ── Weights, in both directions ──


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("kind", list(MODELS))
def test_a_whole_base_loads_and_lacks_its_head_alone(tmp_path, kind, sharded):
    model = MODELS[kind]()
    folder = checkpoint(tmp_path, model)
    if sharded:
        (folder / "model.safetensors").unlink()
        model.save_pretrained(folder, max_shard_size="20KB")
        assert len(list(folder.glob("*.safetensors"))) > 1
    loaded, _ = pretrained.from_checkpoint(folder, "classifier", LABELS, 14, 1)
    assert loaded.config.num_labels == 3
    body = model.base_model.state_dict()
    assert all(torch.equal(v, body[k]) for k, v in loaded.base_model.state_dict().items() if k in body)
    again, _ = pretrained.from_checkpoint(folder, "classifier", LABELS, 14, 1)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in loaded.state_dict().items())


def prefixed(state):
    return {f"module.{k}": v for k, v in state.items()}


def without_a_layer(state):
    return {k: v for k, v in state.items() if ".1." not in k}


def with_more_layers(state):
    return state | {k.replace(".1.", ".5."): v.clone() for k, v in state.items() if ".1." in k}


def renamed(state):
    name = next(k for k in sorted(state) if ".0." in k and k.endswith("weight"))
    return {(f"{k}_old" if k == name else k): v for k, v in state.items()}


def misshapen(state):
    name = next(k for k in sorted(state) if ".0." in k and v_is_matrix(state[k]))
    return state | {name: torch.zeros(7, 7)}


def v_is_matrix(tensor):
    return tensor.dim() == 2


@pytest.mark.parametrize("kind", list(MODELS))
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (prefixed, r"tensors fit no module .*\(the first: module\."),
        (without_a_layer, r"weights of a sequence classifier .* are missing \(the first: .*\.1\."),
        (with_more_layers, r"tensors fit no module .*\.5\."),
        (renamed, r"1 of its tensors fit no module .*_old"),
        (misshapen, r"found shape \(7, 7\), expected .* by its config.json"),
    ],
)
def test_weights_that_are_missing_or_fit_nothing_are_refused(tmp_path, kind, change, message):
    folder = rewrite(checkpoint(tmp_path / "M", MODELS[kind]()), change)
    with pytest.raises(Failure, match=message):
        pretrained.from_checkpoint(folder, "classifier", LABELS, 14, 1)


@pytest.mark.parametrize(("family", "kind"), [("causal", "llama"), ("causal", "gpt2"), ("text2text", "t5")])
def test_language_models_lack_nothing(tmp_path, family, kind):
    folder = checkpoint(tmp_path / "M", MODELS[kind]())
    pretrained.from_checkpoint(folder, family, LABELS, 16, 1)
    tied = kind in ("gpt2", "t5")
    for name, message in (("lm_head.weight", None if tied else "1 weights of"), ("norm", "are missing")):
        changed = tmp_path / name
        shutil.copytree(folder, changed)
        rewrite(changed, lambda s, name=name: {k: v for k, v in s.items() if name not in k.replace("ln_f", "norm")})
        if message is None:
            pretrained.from_checkpoint(changed, family, LABELS, 16, 1)
        else:
            with pytest.raises(Failure, match=message):
                pretrained.from_checkpoint(changed, family, LABELS, 16, 1)


@pytest.mark.parametrize("architecture", [tiny_gpt2, tiny_bert])
def test_an_expert_lacks_nothing_and_has_nothing_over(tmp_path, architecture):
    whole = checkpoint(tmp_path / "M", architecture())
    loading.load_model(whole)
    head = "score.weight" if architecture is tiny_gpt2 else "classifier.weight"
    for name, change, message in (
        ("headless", lambda s: {k: v for k, v in s.items() if k != head}, f"1 weights .* missing .*{head}"),
        ("wide", lambda s: s | {head: torch.zeros(5, 32)}, rf"{head}: found shape \(5, 32\)"),
        ("prefixed", prefixed, "tensors fit no module"),
        ("nan", lambda s: s | {head: torch.full_like(s[head], torch.nan)}, f"{head} holds NaN values"),
    ):
        shutil.copytree(whole, tmp_path / name)
        with pytest.raises(Failure, match=message):
            loading.load_model(rewrite(tmp_path / name, change))


def test_heads_for_something_else_are_passed_over_and_said(tmp_path, caplog):
    folder = checkpoint(tmp_path, MODELS["roberta"]())
    more = {"roberta.pooler.dense.weight": torch.zeros(32, 32), "qa_outputs.weight": torch.zeros(2, 32)}
    rewrite(folder, lambda s: s | more)
    with caplog.at_level("INFO"):
        pretrained.from_checkpoint(folder, "classifier", LABELS, 16, 1)
    assert "not used, heads for something else:" in caplog.text and "qa_outputs.weight" in caplog.text


# ── What is no checkpoint, and what to do about it ──


def test_what_people_bring_is_named_and_never_to_be_deleted(tmp_path):
    whole = checkpoint(tmp_path / "M", tiny_gpt2())

    def changed(name, change):
        shutil.copytree(whole, tmp_path / name)
        change(tmp_path / name)
        return tmp_path / name

    def quantised(folder):
        config = json.loads((folder / "config.json").read_text())
        config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
        (folder / "config.json").write_text(json.dumps(config))

    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 498000\n"
    cases = {
        changed("lora", lambda f: (f / "adapter_config.json").write_text("{}")): "a LoRA adapter",
        changed("pointer", lambda f: (f / "model.safetensors").write_text(pointer)): "git lfs pull",
        changed(
            "cut", lambda f: os.truncate(f / "model.safetensors", 5000)
        ): "copy or download the complete folder again",
        changed("bare", lambda f: (f / "config.json").unlink()): "config.json is missing",
        changed("4bit", quantised): "quantised \\(bitsandbytes\\)",
        whole / "model.safetensors": "found a file, expected a folder",
        tmp_path / "nowhere": "found nothing, expected a folder",
    }
    for folder, message in cases.items():
        with pytest.raises(Failure, match=message) as refused:
            pretrained.from_checkpoint(folder, "classifier", LABELS, 16, 1)
        assert "delete" not in str(refused.value)
    made = tmp_path / "results/x/models/base"
    shutil.copytree(tmp_path / "cut", made)
    with pytest.raises(Failure, match=r"delete .*results/x/models/base and rerun"):
        loading.load_model(made)


# ── The same by meaning ──


def test_the_same_tokenizer_in_other_files_is_the_same(tmp_path):
    """Published fine-tunes have it raw or saved again, with other padding, or as two files of words and merges."""
    from transformers import GPT2Tokenizer

    whole = scratch.train_tokenizer(TEXTS, 300, 16)
    for name in ("base", "padded", "raw", "other"):
        whole.save_pretrained(tmp_path / name)
    written = json.loads((tmp_path / "base/tokenizer.json").read_text())
    padded = written | {"padding": {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": 1,
                                    "pad_type_id": 0, "pad_token": "<|pad|>"}}  # fmt: skip
    (tmp_path / "padded/tokenizer.json").write_text(json.dumps(padded))
    (tmp_path / "raw/tokenizer.json").write_text(json.dumps(written, separators=(",", ":")))
    pair = tmp_path / "pair"
    pair.mkdir()
    (pair / "vocab.json").write_text(json.dumps(whole.get_vocab()))
    merges = [m if isinstance(m, str) else " ".join(m) for m in written["model"]["merges"]]
    (pair / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    words = {
        "tokenizer_class": "GPT2Tokenizer",
        "eos_token": "<|endoftext|>",
        "bos_token": "<|endoftext|>",
        "unk_token": None,
    }
    (pair / "tokenizer_config.json").write_text(json.dumps(words | {"pad_token": "<|pad|>"}))
    assert isinstance(tokenizers.load_tokenizer(pair), GPT2Tokenizer)
    for name in ("padded", "raw", "pair"):
        compatibility.check_tokenizer(tmp_path / name, tmp_path / "base")
    for key, value in (("normalizer", {"type": "Lowercase"}), ("post_processor", None)):
        changed = dict(written) | {key: value}
        if key == "post_processor":
            vocabulary = written["model"]["vocab"]
            first, second = (next(k for k, i in vocabulary.items() if i == n) for n in (50, 51))
            changed["model"] = {**written["model"], "vocab": vocabulary | {first: 51, second: 50}}
        (tmp_path / "other/tokenizer.json").write_text(json.dumps(changed))
        with pytest.raises(Failure, match=r"other: another tokenizer than .*: .* here and .* there"):
            compatibility.check_tokenizer(tmp_path / "other", tmp_path / "base")


def test_keys_that_shape_nothing_may_differ(tmp_path):
    for name in ("base", "tool", "other"):
        checkpoint(tmp_path / name, tiny_gpt2())

    def write(name, **keys):
        file = tmp_path / name / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | keys))

    write("tool", unsloth_version="2024.9", unsloth_fixed=True, trained_with="x", attn_pdrop=0.0)
    compatibility.check_config(tmp_path / "tool", tmp_path / "base")
    write("other", activation_function="relu")
    with pytest.raises(Failure, match=r"mine/config.json: activation_function is \"relu\", in .*base it is"):
        compatibility.check_config(tmp_path / "other", tmp_path / "base", Path("mine"))
