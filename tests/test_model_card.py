"""A model's card says what is known of the texts, and no more."""

import pytest

from mllm.evaluation.metrics import METRICS
from mllm.models import cards
from mllm.reporting import model_card

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
