"""Test every family on every architecture: prepare a checkpoint of the hub's form, train, write, read and ask it again."""

import contextlib
import json

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.utils.class_weight import compute_class_weight
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5ForConditionalGeneration,
)

from mllm.core.errors import Failure
from mllm.models import (
    cards,
    checkpoint_files,
    families,
    frozen_states,
    heads,
    loading,
    pretrained,
    scratch,
    training,
    training_callbacks,
    training_rows,
)
from tiny_models import predicted

NAMES = ["bad", "good"]
TEXTS = [f"{'good great' if i % 2 else 'bad awful'} pill number {i} {'word ' * (i % 17)}" for i in range(240)]
ODD = ["", " ", "a", "word " * 200, "😀 naïve 薬 лекарство", "good <|endoftext|> bad", *TEXTS[:10]]
LONGEST = 64
PROMPT = {"template": "R: {review}\nIs it {labels}?", "words": {}, "chat": False, "score": "likelihood", "examples": 0}
HYPER = {"epochs": 1.0, "learning_rate": 4e-3, "batch_size": 8, "weight_decay": 0.01, "warmup": 0.1, "seed": 3}
LORA = {"rank": 8, "alpha": 32.0, "dropout": 0.0}
SIZES = {"vocab_size": 300, "pad_token_id": 1}
T5 = {
    "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "feed_forward_proj": "gated-gelu",
    "decoder_start_token_id": 1, "eos_token_id": 0, "dropout_rate": 0.0, **SIZES,
}  # fmt: skip
BERT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, **SIZES}
ARCHITECTURES = {
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=LONGEST, **SIZES)),
    "bert": lambda: BertModel(BertConfig(max_position_embeddings=LONGEST, **BERT)),
    "roberta": lambda: RobertaModel(RobertaConfig(max_position_embeddings=LONGEST + 2, **BERT)),
    "distilbert": lambda: DistilBertModel(
        DistilBertConfig(dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=LONGEST, **SIZES)
    ),
    "llama": lambda: LlamaForCausalLM(
        LlamaConfig(max_position_embeddings=LONGEST, num_key_value_heads=1, **BERT, eos_token_id=0)
    ),
    "t5 tied": lambda: T5ForConditionalGeneration(T5Config(**T5)),
    "t5 untied": lambda: T5ForConditionalGeneration(T5Config(tie_word_embeddings=False, **T5)),
}
CASES = [
    *(("classifier", architecture) for architecture in ARCHITECTURES),
    ("text2text", "t5 tied"), ("text2text", "t5 untied"), ("causal", "gpt2"), ("causal", "llama"),
]  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    number = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(number)


def shipped(architecture, folder):
    """Make a pretrained checkpoint of the hub's form."""
    torch.manual_seed(0)
    model = ARCHITECTURES[architecture]()
    tokenizer = scratch.train_tokenizer(TEXTS, 300, LONGEST, ended=architecture.startswith("t5"))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if architecture == "t5 untied":  # like FLAN-T5's files: both matrices, and a configuration that says so
        state = load_file(folder / "model.safetensors")
        state["lm_head.weight"] = torch.randn_like(state["shared.weight"]) * 0.1
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    return folder


def prepared(family, architecture, folder, names=NAMES):
    model, tokenizer = pretrained.from_checkpoint(shipped(architecture, folder), family, names, LONGEST, 3)
    return model, tokenizer, {"family": family, "task": "t", "model": {"prompt": PROMPT}}


def table(texts, labels):
    numbers = range(len(texts))
    return pl.DataFrame({"review_id": numbers, "group": numbers, "review": texts, "label_t": labels})


PARTS = {
    "train": table(TEXTS[:160], [i % 2 for i in range(160)]),
    "valid": table(TEXTS[160:], [i % 2 for i in range(80)]),
}


def trained(model, tokenizer, card, folder, parts=PARTS, **hyper):
    hyper = {**HYPER, **hyper}
    reviews = training_rows.prepare(parts, NAMES, tokenizer, card, hyper)
    checkpoints = training.Checkpoints(folder / "checkpoints", 300)
    return training.fine_tune(model, tokenizer, reviews, card["family"], hyper, checkpoints)


def asked(model, tokenizer, card, texts=ODD):
    return predicted(families.load(card["family"]).scorer(card, model, tokenizer, NAMES), texts)


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize(("family", "architecture"), CASES)
def test_trained_written_read_and_asked_again(family, architecture, lora, tmp_path):
    model, tokenizer, card = prepared(family, architecture, tmp_path / "hub")
    before = {n: v.clone() for n, v in model.state_dict().items()}
    model, facts = trained(model, tokenizer, card, tmp_path, lora=lora)
    assert facts["reviews"] == 160 and facts["steps"] == 20 and facts["batch_parts"] == 1
    assert facts["validation"][-1]["loss"] < facts["loss"][0]["loss"]
    after = model.state_dict()
    assert after.keys() == before.keys()
    moved = {n for n in before if not torch.equal(before[n], after[n])}
    embeddings = {n for n in before if any(word in n for word in ("wte", "embed", "shared"))}
    assert bool(moved & embeddings) == (lora is None) and len(moved) > 5
    # Merging needs that the base alone has none of them.
    assert not [n for n in after if "lora" in n or "base_layer" in n]
    expected = asked(model, tokenizer, card)
    checkpoint_files.save(model, tokenizer, tmp_path / "expert", cards.Base(**card, seed=3))
    again, its_tokenizer = loading.load_model(tmp_path / "expert", family)
    # The numbers are the same, but folded adapters leave them in another order in memory, which changes sums' order.
    assert all(torch.equal(v, after[n]) for n, v in again.state_dict().items())
    np.testing.assert_allclose(
        asked(again, its_tokenizer, card), expected, atol=1e-5 if lora or "t5" in architecture else 0, rtol=0
    )
    right = asked(model, tokenizer, card, TEXTS[160:]).argmax(1) == np.arange(80) % 2
    assert right.mean() > 0.9 or family == "causal"  # which first learns that an answer is one of the words
    written = load_file(tmp_path / "expert/model.safetensors")
    if architecture == "t5 untied" and family == "text2text":
        assert not torch.equal(written["lm_head.weight"], written["shared.weight"])
        assert again.config.scale_decoder_outputs is False
    if architecture == "t5 tied" and family == "text2text":
        assert torch.equal(again.lm_head.weight, again.shared.weight)


@pytest.mark.parametrize(("family", "architecture"), CASES)
def test_what_is_trained_is_what_is_scored(family, architecture, tmp_path):
    """A batch's losses are the answers' log-likelihoods of predictions, with or without padding."""
    model, tokenizer, card = prepared(family, architecture, tmp_path)
    of, labels = families.load(family), [i % 2 for i in range(len(ODD))]
    rows, cut = of.rows(card, tokenizer, NAMES, ODD, labels)
    assert cut == 1 and max(len(row["input_ids"]) for row in rows) <= LONGEST
    with torch.inference_mode():
        losses, right = of.losses(model.eval(), of.collator(model, tokenizer)(rows))
        scorer = of.scorer(card, model, tokenizer, NAMES)
        scores = torch.stack([scorer.score([ids])[0] for ids in scorer.encode(ODD)[0]])
    if family == families.HEADED:
        scores = scores.log_softmax(-1)
        assert right.tolist() == (scores.argmax(1) == torch.tensor(labels)).tolist()
    np.testing.assert_allclose(losses, -scores[range(len(ODD)), labels], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_head_is_drawn_by_the_seed_alone(seed, tmp_path):
    """This also holds if the checkpoint has its own head (DistilBERT's has two layers)."""
    model, tokenizer, card = prepared("classifier", "distilbert", tmp_path / "hub")
    checkpoint_files.save(model, tokenizer, tmp_path / "tuned", cards.Base(**card, seed=3))
    drawn = [
        pretrained.from_checkpoint(tmp_path / "tuned", "classifier", NAMES, LONGEST, s)[0].state_dict()
        for s in (seed, seed, 9)
    ]
    other = {n for n in drawn[0] if not torch.equal(drawn[0][n], drawn[2][n])}
    assert other == {"pre_classifier.weight", "classifier.weight"}
    assert all(torch.equal(drawn[0][n], drawn[1][n]) for n in drawn[0])


def test_more_tokens_than_positions(tmp_path):
    shipped("roberta", tmp_path)
    with pytest.raises(Failure, match=r"max_length is 65, but .* has 64 positions"):
        pretrained.from_checkpoint(tmp_path, "classifier", NAMES, LONGEST + 1, 1)


def test_weights_that_are_not_the_files_are_refused(tmp_path):
    """transformers 5 makes such weights when it ties weights that the files do not tie."""
    folder = shipped("t5 untied", tmp_path)
    model, _ = loading.load_model(folder, "text2text")
    loading.check_values(model, folder)
    model.lm_head.weight = model.shared.weight
    with pytest.raises(Failure, match=r"lm_head.weight differs from the file once .* has loaded it"):
        loading.check_values(model, folder)


def test_class_weights_are_scikit_learns():
    labels = np.array([0] * 30 + [1] * 10 + [3] * 2)
    found = training_rows.class_weights(labels, 4, "balanced")
    np.testing.assert_allclose(
        found[[0, 1, 3]], compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=labels)
    )
    assert found[labels].mean() == pytest.approx(1)
    assert training_rows.class_weights(labels, 4, None).tolist() == [1, 1, 1, 1]


def test_root_weights_lie_between_none_and_balanced():
    """They are proportional to 1 / √frequency, so that scikit-learn's are proportional to their squares; 1 on average."""
    labels = np.array([0] * 30 + [1] * 10 + [3] * 2)
    found = training_rows.class_weights(labels, 4, "sqrt")
    squares = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=labels)
    np.testing.assert_allclose((found[[0, 1, 3]] / found[0]) ** 2, squares / squares[0])
    assert found[labels].mean() == pytest.approx(1)


LAYERS = {
    "gpt2": "h.",
    "bert": "layer.",
    "roberta": "layer.",
    "distilbert": "layer.",
    "llama": "layers.",
    "t5": "encoder.block.",
}
EMBEDDINGS = ("wte", "wpe", "embed", "shared")


@pytest.mark.parametrize(
    ("family", "architecture", "lora"),
    [
        *((*case, None) for case in CASES),
        *((*case, LORA) for case in CASES if case[1] in ("gpt2", "bert", "t5 untied")),
    ],
)
def test_frozen_layers_stay_as_the_base_has_them(family, architecture, lora, tmp_path):
    """Embeddings and weights tied to them stay, too; all other layers move."""
    model, tokenizer, card = prepared(family, architecture, tmp_path / "hub")
    before = {n: v.clone() for n, v in model.state_dict().items()}
    model, _ = trained(model, tokenizer, card, tmp_path, lora=lora, freeze=1, steps=4)
    moved = {n for n, v in model.state_dict().items() if not torch.equal(v, before[n])}
    first = LAYERS[architecture.split()[0]]
    assert not [n for n in moved if f"{first}0." in n or any(word in n.lower() for word in EMBEDDINGS)]
    matrices = {n for n, v in before.items() if f"{first}1." in n and v.dim() == 2}
    assert matrices and matrices <= moved and not hasattr(model, "peft_config")


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "t5 tied"])
def test_a_head_alone_is_trained(architecture, tmp_path):
    model, tokenizer, card = prepared("classifier", architecture, tmp_path / "hub")
    before = {n: v.clone() for n, v in model.state_dict().items()}
    model, _ = trained(model, tokenizer, card, tmp_path, head_only=True, steps=4)
    moved = {n for n, v in model.state_dict().items() if not torch.equal(v, before[n])}
    assert moved == {n for n in before if n.split(".")[0] in heads.head_modules(model)} != set()


@pytest.mark.parametrize(
    ("architecture", "freeze"), [("gpt2", 1), ("bert", 1), ("bert", 2), ("distilbert", 2), ("llama", 1)]
)
def test_remembered_states_train_the_same_model(architecture, freeze, tmp_path, monkeypatch):
    """With dropout outside frozen layers and all reviews' lengths, models differ by the rounding of other padding only."""
    ends = {}
    for limit in (frozen_states.LARGEST, 0):
        monkeypatch.setattr(frozen_states, "LARGEST", limit)
        model, tokenizer, card = prepared("classifier", architecture, tmp_path / f"hub-{limit}")
        calls = []
        body = getattr(model, model.base_model_prefix)
        last = next(m for m in body.modules() if isinstance(m, torch.nn.ModuleList))[freeze - 1]
        last.register_forward_hook(lambda _, given, output, calls=calls: calls.append(output.requires_grad))
        model, facts = trained(model, tokenizer, card, tmp_path / str(limit), freeze=freeze, epochs=2.0)
        assert not any(calls)
        ends[limit] = model.state_dict(), facts["validation"]
        assert "forward" not in vars(last)
    remembered, computed = ends.values()
    matrices = {
        n: v for n, v in remembered[0].items() if v.dim() == 2
    }  # Adam makes steps of rounding errors, in biases of keys
    for name, value in matrices.items():
        torch.testing.assert_close(value, computed[0][name], atol=2e-4, rtol=0)
    assert [round(p["loss"], 3) for p in remembered[1]] == pytest.approx(
        [round(p["loss"], 3) for p in computed[1]], abs=2e-3
    )


@pytest.mark.parametrize(
    ("family", "architecture", "hyper", "message"),
    [
        ("classifier", "bert", {"freeze": 3}, "freeze: found 3, expected at most 2, the layers of this bert"),
        ("causal", "gpt2", {"head_only": True}, "head_only: found a model of family causal, expected classifier"),
    ],
)
def test_what_cannot_be_frozen_is_refused(family, architecture, hyper, message, tmp_path):
    model, tokenizer, card = prepared(family, architecture, tmp_path)
    with pytest.raises(Failure, match=message):
        trained(model, tokenizer, card, tmp_path, **hyper)


def test_rare_classes_count_more_where_that_is_wanted(tmp_path):
    labels = [int(i % 16 == 0) for i in range(160)]
    parts = {"train": table(["pill " * (i % 5) for i in range(160)], labels), "valid": PARTS["valid"][:0]}
    said = {}
    for how in (None, "balanced"):
        model, tokenizer, card = prepared("classifier", "gpt2", tmp_path / f"hub-{how}")
        model, facts = trained(model, tokenizer, card, tmp_path / str(how), parts, class_weights=how, epochs=3.0)
        assert facts["validation"] == []
        said[how] = np.exp(asked(model, tokenizer, card, ["pill pill"]))[0, 1]
    assert said[None] < 0.15 and 1.7 * said[None] < said["balanced"] < 0.65


def test_training_ends_where_validation_was_best(tmp_path):
    """Labels are random: the longer the training, the worse validation becomes."""
    rng = np.random.default_rng(0)
    parts = {
        split: table(rows["review"].to_list(), rng.integers(0, 2, rows.height).tolist())
        for split, rows in PARTS.items()
    }
    model, tokenizer, card = prepared("classifier", "llama", tmp_path / "hub")
    model, facts = trained(model, tokenizer, card, tmp_path, parts, early_stopping=2, epochs=30.0, learning_rate=2e-3)
    losses = [point["loss"] for point in facts["validation"]]
    assert [point["epoch"] for point in facts["validation"]] == list(range(1, len(losses) + 1))
    best = int(np.argmin(losses))
    assert len(losses) == best + 3 < 30 and facts["steps"] == 20 * len(losses)
    logp = asked(model, tokenizer, card, parts["valid"]["review"].to_list())
    truth = parts["valid"]["label_t"].to_numpy()
    assert -logp[range(80), truth].mean() == pytest.approx(losses[best], abs=1e-4)
    assert facts["validation"][best]["accuracy"] == pytest.approx((logp.argmax(1) == truth).mean(), abs=0.02)


class Killed(Exception):
    pass


@pytest.mark.parametrize("step", [7, 20, 21, 40, 60])
def test_a_training_taken_up_at_any_step_ends_the_same(step, tmp_path, monkeypatch):
    """This includes the last step of an epoch (20, 40), and steps after the early stop."""
    patience = {"epochs": 3.0, "early_stopping": 1 if step == 60 else 5, "learning_rate": 0.2 if step == 60 else 4e-3}
    ends = {}
    for name in ("whole", "cut"):
        model, tokenizer, card = prepared("classifier", "gpt2", tmp_path / f"hub-{name}")
        if name == "cut":
            save = training_callbacks.TimedCheckpoints.on_save

            def killed(self, args, state, control, save=save, **more):
                save(self, args, state, control, **more)
                if state.global_step >= min(step, ends["whole"][1]["steps"]):
                    raise Killed

            monkeypatch.setattr(training_callbacks.TimedCheckpoints, "on_save", killed)
            monkeypatch.setattr(
                training_callbacks.TimedCheckpoints, "seconds", property(lambda _: 0, lambda *_: None), raising=False
            )
            with pytest.raises(Killed) if step < 60 else contextlib.nullcontext():
                trained(model, tokenizer, card, tmp_path / name, **patience)
            monkeypatch.setattr(training_callbacks.TimedCheckpoints, "on_save", save)
            model, tokenizer, card = prepared("classifier", "gpt2", tmp_path / "hub-again")
        model, facts = trained(model, tokenizer, card, tmp_path / name, **patience)
        ends[name] = model.state_dict(), facts
    assert all(torch.equal(v, ends["whole"][0][n]) for n, v in ends["cut"][0].items())
    assert {k: v for k, v in ends["cut"][1].items() if k != "loss"} == {
        k: v for k, v in ends["whole"][1].items() if k != "loss"
    }


def test_batches_hold_reviews_of_similar_length_once_each():
    lengths = np.random.default_rng(1).integers(1, 400, 1003).tolist()
    order = training_rows.ByLength(lengths, 16, 5)
    first = list(order)
    assert sorted(first) == list(range(1003)) and list(order) == first
    spread = [np.ptp([lengths[i] for i in first[k : k + 16]]) for k in range(0, 992, 16)]
    assert np.mean(spread) < 20
    assert np.std([np.mean([lengths[i] for i in first[k : k + 16]]) for k in range(0, 992, 16)]) > 80
    order.set_epoch(1)
    assert list(order) != first and sorted(order) == list(range(1003))


def test_a_stopped_training_knows_when_it_was_to_stop():
    state = type(
        "State",
        (),
        {
            "log_history": [
                {"step": s, "epoch": s, "eval_nll": v, "eval_accuracy": 0.5} for s, v in enumerate([3, 1, 2, 2])
            ]
        },
    )
    control = type("Control", (), {"should_training_stop": False})
    training_callbacks.EarlyStopping(3).on_train_begin(None, state, control)
    assert not control.should_training_stop
    with pytest.raises(training_callbacks.Over):
        training_callbacks.EarlyStopping(2).on_train_begin(None, state, control)
    assert control.should_training_stop
