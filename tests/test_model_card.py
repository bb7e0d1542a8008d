"""Check that a model's card states only what is known about the texts."""

import dataclasses

import pytest
import yaml

from mllm.evaluation.metrics import METRICS
from mllm.models import cards
from mllm.reporting import exported, model_card, model_card_tasks

SCORES = {f"{split}_accuracy{end}": 0.5 for split in ("valid", "test") for end in ("", "_low", "_high")}


def facts(source: str, description: str | None = None, family: str = "classifier") -> model_card.Facts:
    known = {"family": family, "model": {"source": "scratch", "name": "tiny"}, "task": "mood"}
    parents = {"base-mood": "00", "a": "11"}
    return model_card.Facts(
        experiment={"name": "x", "seed": 1, "data": {"source": source, "description": description}}, task="mood", labels=["bad", "good"],
        row={"candidate": "linear-1", "method": "linear", "members": "a b", **{f"test_{m}": None for m in METRICS}, **SCORES},
        among="", rivals=[], recipe="merge_method: linear", members={}, base=cards.Base(**known, seed=1),
        merge=cards.Merge(**known, recipe={}, dtype="float32", weights="00", parents=parents, device="cpu", versions={"torch": "2"}),
        split={"mode": "random"}, counts={split: [1, 1] for split in ("train", "valid", "test")}, check="checked",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("source", "said", "english"),
    [("uci", "drug reviews", True), ("synthetic", "generated drug reviews", True), ("local", "texts", False)],
)
def test_texts_are_called_drug_reviews_where_they_are(source, said, english):
    text = model_card.text(facts(source))
    assert f"for the classification of {said}: task *mood*" in " ".join(text.split())
    assert f"name: {said.capitalize()}" in text
    assert ("language:" in text) == english
    assert source != "local" or "drug" not in text.lower()


def test_a_description_says_what_the_texts_are():
    text = model_card.text(facts("local", "reviews of hotels"))
    assert "for the classification of reviews of hotels: task *mood*" in " ".join(text.split())
    assert "name: Reviews of hotels" in text
    assert "reviews of hotels" in model_card.text(facts("uci", "reviews of hotels"))


@pytest.mark.parametrize(
    ("family", "loader"),
    [("classifier", "pipeline"), ("text2text", "AutoModelForSeq2SeqLM"), ("causal", "AutoModelForCausalLM")],
)
def test_the_card_says_how_to_use_the_model(family, loader):
    text = model_card.text(facts("local", family=family))
    assert loader in text and 'linear-1"' in text


def test_one_card_for_a_model_over_several_tasks():
    parts = {task: dataclasses.replace(facts("uci"), task=task) for task in ("mood", "topic")}
    text = model_card_tasks.text("linear-1", parts)
    heading = yaml.safe_load(text.split("---")[1])
    (index,) = heading["model-index"]
    assert index["name"] == "linear-1" and [r["task"]["name"] for r in index["results"]] == ["mood", "topic"]
    assert "One model for 2 tasks" in text and "| topic | `topic/` | bad, good |" in text
    assert 'AutoTokenizer.from_pretrained("linear-1", subfolder="mood")' in text
    asked = {task: facts("uci", family="causal") for task in ("mood", "topic")}
    assert "AutoModelForCausalLM" in model_card_tasks.text("linear-1", asked)


@pytest.mark.parametrize("whole", ["ties-density0.5-0123456789", "ties-density0.5-0123456789@2"])
def test_a_run_of_a_part_is_a_run_of_the_whole(whole):
    part = exported.part_run(whole, "a.b")
    assert part in ("ties-density0.5-0123456789.a.b", "ties-density0.5-0123456789.a.b@2")
    assert exported.whole_run(part, "a.b") == whole
