"""Match the outputs of published classifiers to classes, by name or as the experiment says."""

import copy
import json
from pathlib import Path

import pytest
import torch
import yaml
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from conftest import ROOT
from mllm.core.errors import Failure
from mllm.experiment import grid, load
from mllm.models import outputs, scratch
from tiny_models import LABELS, tiny_bert, tiny_gpt2, tiny_t5_classifier


def configured(folder: Path, names: list[str] | None, **more) -> Path:
    labels = {} if names is None else {"id2label": {str(i): n for i, n in enumerate(names)}}
    (folder / "config.json").write_text(json.dumps(labels | more))
    return folder


@pytest.mark.parametrize(
    ("names", "said", "order"),
    [
        (LABELS, None, [0, 1, 2]),
        (["NEGATIVE", "NEUTRAL", "POSITIVE"], None, [0, 1, 2]),
        (["Positive", "Negative", "Neutral "], None, [1, 2, 0]),
        (["positive", "neutral", "negative"], None, [2, 1, 0]),
        (
            ["LABEL_0", "LABEL_1", "LABEL_2"],
            {"negative": "LABEL_2", "neutral": "LABEL_0", "positive": "LABEL_1"},
            [2, 0, 1],
        ),
        (["bad", "soso", "good"], {"positive": "good", "negative": "bad", "neutral": "soso"}, [0, 1, 2]),
        (LABELS, {"negative": "positive", "neutral": "neutral", "positive": "negative"}, [2, 1, 0]),
    ],
)
def test_outputs_are_found_by_name_or_by_what_is_said(tmp_path, names, said, order):
    assert outputs.order_of(configured(tmp_path, names), LABELS, said) == order


def test_a_configuration_without_names_has_two():
    folder = ROOT / "results/nowhere"  # without names in the configuration, the library has two
    assert outputs.UNNAMED == ["LABEL_0", "LABEL_1"] and not folder.exists()


@pytest.mark.parametrize(
    ("names", "said", "more", "message"),
    [
        (["LABEL_0", "LABEL_1", "LABEL_2"], None, {}, r"labels differ .*found LABEL_0, .*Fix: map them"),
        (["negative", "positive"], None, {}, "labels differ from the task's"),
        (None, None, {}, r"found LABEL_0, LABEL_1; expected negative"),
        (["a", "a", "b"], None, {}, "labels differ from the task's"),
        (["neg", "neu", "pos"], {"negative": "neg", "neutral": "neu", "positive": "good"}, {}, "no label 'good'"),
        (["neg", "neu", "pos"], {"negative": "neg", "neutral": "neu"}, {}, "expected the task's classes"),
        (
            ["1", "2", "3", "4"],
            {"negative": "1", "neutral": "2", "positive": "4"},
            {},
            "found 4 labels .* expected 3, the task's classes",
        ),
        (LABELS, None, {"problem_type": "multi_label_classification"}, "problem_type is multi_label_classification"),
        (LABELS, None, {"problem_type": "regression"}, "problem_type is regression"),
    ],
)
def test_outputs_that_mean_something_else_are_refused(tmp_path, names, said, more, message):
    with pytest.raises(Failure, match=message):
        outputs.order_of(configured(tmp_path, names, **more), LABELS, said)


SMALL = {"vocab_size": 300, "num_labels": 3}
MODELS = {
    "gpt2": tiny_gpt2,
    "bert": tiny_bert,
    "t5": tiny_t5_classifier,
    "roberta": lambda: RobertaForSequenceClassification(
        # With as many hidden values as classes, another map of the head than its last one has as many outputs, too.
        RobertaConfig(hidden_size=3, num_hidden_layers=1, num_attention_heads=1, intermediate_size=6,
                      max_position_embeddings=20, **SMALL)
    ),
    "distilbert": lambda: DistilBertForSequenceClassification(
        DistilBertConfig(dim=32, n_layers=1, n_heads=2, hidden_dim=48, max_position_embeddings=20, **SMALL)
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(MODELS))
def test_a_head_gets_the_task_s_order(kind):
    torch.manual_seed(0)
    model = MODELS[kind]().eval()
    tokenizer = scratch.train_tokenizer(["some words to read, and some more"] * 3, 300, 16, ended=kind == "t5")
    model.config.eos_token_id = tokenizer.eos_token_id  # a T5 reads its answer there
    read = tokenizer("some other words", return_tensors="pt")
    read.pop("token_type_ids", None)
    with torch.inference_mode():
        before = model(**read).logits
        outputs.reorder(model, tokenizer, Path("theirs"), [2, 0, 1])
        assert torch.allclose(model(**read).logits, before[:, [2, 0, 1]], atol=1e-6)


def test_a_head_that_cannot_be_put_into_order_is_refused():
    class Odd(torch.nn.Module):
        def __init__(self, classifier):
            super().__init__()
            self.score = classifier

        def forward(self, hidden):
            return self.score(hidden) + torch.arange(3.0)

    model = tiny_bert()
    model.classifier = Odd(model.classifier)
    tokenizer = scratch.train_tokenizer(["some words to read, and some more"] * 3, 300, 16)
    with pytest.raises(Failure, match="theirs: the outputs of a bert cannot be put into the task's order"):
        outputs.reorder(model, tokenizer, Path("theirs"), [1, 0, 2])


# ── In an experiment ──

DEMO = yaml.safe_load((ROOT / "config/demo.yaml").read_text())
THEIRS = {"name": "theirs", "source": "local", "path": "theirs"}
SAID = {"negative": "LABEL_0", "neutral": "LABEL_1", "positive": "LABEL_2"}


def with_published(**reference):
    raw = copy.deepcopy(DEMO)
    raw["models"].append(THEIRS)
    raw["experts"].append({"name": "taken", "model": "theirs", "labels": SAID})
    raw["references"].append({"name": "published", "model": "theirs", "train": "none", **reference})
    raw["blends"] = [{"name": "both", "method": "soft_vote", "members": ["published", "pain"]}]
    return raw


def test_a_classifier_can_be_reference_and_blend_member_as_it_is():
    built = grid.build(load.parse(with_published(labels=SAID)))
    reference, expert = built.candidates["published"], built.candidates["taken"]
    assert (reference.kind, reference.method, reference.made_by) == ("reference", "published", "take_expert")
    assert reference.folder == "models/published" and reference.labels == expert.labels == SAID
    assert built.starts.keys() == {"base-sentiment", "larger-gpt2-sentiment.base"}
    assert built.candidates["both"].members == ("pain", "published")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": {**SAID, "good": "x"}}, r"references\[\d\].labels: 'good' is no class"),
        ({"labels": {"negative": "a", "positive": "b"}}, "gives no output for neutral"),
        ({"labels": {**SAID, "neutral": "LABEL_0"}}, "'LABEL_0' is the output of several classes"),
        ({"labels": SAID, "train": "all"}, "labels: only beside train: none"),
        ({"labels": {1: "a", 2: "b"}}, "YAML reads the name 1 as a number or date"),
        ({"model": "tiny-gpt2"}, "'tiny-gpt2' has source scratch"),
    ],
)
def test_maps_of_labels_that_do_not_fit_are_refused(change, message):
    with pytest.raises(Failure, match=message):
        load.parse(with_published(**change))


def test_labels_are_of_what_is_taken_and_has_outputs():
    raw = with_published()
    raw["experts"][0] |= {"labels": SAID}
    with pytest.raises(Failure, match=r"experts\[0\].labels: only beside model"):
        load.parse(raw)
    raw = with_published(labels=SAID)
    raw["models"][-1] = {**THEIRS, "family": "causal"}
    with pytest.raises(Failure, match=r"'theirs' answers a prompt, and has no outputs. Fix: use prompt.words"):
        load.parse(raw)
