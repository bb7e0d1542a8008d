"""Compare predictions from states of frozen layers with those without them: they are the same, bit for bit."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mllm.models import families, loading, tokens
from mllm.models.families import classifier
from mllm.prediction import first_layers, run_model
from tiny_models import LABELS, make_models, tiny_bert, tiny_gpt2, tiny_t5_classifier

TEXTS = [" ".join(["some words to make a vocabulary of"] * (1 + i % 3) + ["word"] * (i % 5)) for i in range(40)]


def predict(folder, kept, number, write=True):
    """Return a model's log-probabilities, and its known states of the first layers."""
    model, tokenizer = loading.load_model(folder, families.HEADED)
    scorer = classifier.scorer({}, model, tokenizer, LABELS)
    read = tokens.encode(scorer, TEXTS)
    run_model.make_ready(model)
    with first_layers.shared(number, scorer, read, kept, write) as first:
        return run_model.log_probabilities(scorer, read, None, first), first


def states(kept):
    return sorted(kept.glob("states-*.npy"))


@pytest.fixture(params=[tiny_gpt2, tiny_bert], ids=["gpt2", "bert"])
def models(request, tmp_path):
    """Make a base, and an expert whose first layer and embeddings are the base's."""
    folder = make_models(request.param, tmp_path / "models")
    base, own = (load_file(folder / name / "model.safetensors") for name in ("base", "a"))
    shared = {
        n: t for n, t in base.items() if "embed" in n or ".wte" in n or ".wpe" in n or ".h.0." in n or "layer.0." in n
    }
    assert len(shared) > 10
    save_file({**own, **shared}, folder / "a/model.safetensors", metadata={"format": "pt"})
    return folder


def test_what_shares_layers_predicts_the_same_bits(models, tmp_path):
    """The base writes its states; the expert reads them, and predicts the same as without them."""
    kept = tmp_path / "kept"
    alone, _ = predict(models / "a", None, 0)
    base, first = predict(models / "base", kept, 1)
    assert not first.known
    assert len(states(kept)) == 1
    assert np.array_equal(base, predict(models / "base", None, 0)[0])
    found, first = predict(models / "a", kept, 1)
    assert first.known
    assert np.array_equal(found, alone)
    assert not np.array_equal(found, base)
    np.save(states(kept)[0], np.load(states(kept)[0]) * 2)  # predictions are computed from them
    assert not np.array_equal(predict(models / "a", kept, 1)[0], alone)


def test_a_changed_layer_finds_no_states(models, tmp_path):
    """Weights decide: a merge whose first layers differ by a rounding computes its states, and writes none."""
    kept = tmp_path / "kept"
    predict(models / "base", kept, 1)
    found, first = predict(models / "b", kept, 1, write=False)
    assert first is None
    assert len(states(kept)) == 1
    assert np.array_equal(found, predict(models / "b", None, 0)[0])


def test_a_zero_s_sign_changes_no_state(models, tmp_path):
    """Adding nothing to the base turns -0 into 0; padding's embedding may have -0."""
    file = models / "base/model.safetensors"
    state = load_file(file)
    word = next(n for n in state if "wte" in n or "word_embeddings" in n)
    for sign in (-1.0, 1.0):
        state[word][1] = sign * 0.0
        save_file(state, file, metadata={"format": "pt"})
        _, first = predict(models / "base", tmp_path / "kept", 1)
        assert first.known == (sign > 0)
    assert len(states(tmp_path / "kept")) == 1


def test_states_of_some_reviews_alone_are_not_kept(models, tmp_path):
    """A resumed job computes the states that its predecessor lacked."""
    model, tokenizer = loading.load_model(models / "base", families.HEADED)
    scorer = classifier.scorer({}, model, tokenizer, LABELS)
    read = tokens.encode(scorer, TEXTS)
    run_model.make_ready(model)
    sharing = first_layers.shared(1, scorer, read, tmp_path / "kept", True)
    with sharing as first, torch.inference_mode(), first.around([0, 1]):
        scorer.score(read.batch([0, 1]))
    assert not list((tmp_path / "kept").iterdir())


def test_models_with_a_decoder_share_none(tmp_path):
    """T5's first layer also makes the other layers' position bias."""
    folder = make_models(tiny_t5_classifier, tmp_path / "models")
    model, tokenizer = loading.load_model(folder / "base", families.HEADED)
    scorer = classifier.scorer({}, model, tokenizer, LABELS)
    with first_layers.shared(1, scorer, tokens.encode(scorer, TEXTS), tmp_path / "kept", True) as first:
        assert first is None
