"""Test models that are asked: labels that a tokenizer cannot distinguish, templates that refuse, tokenizers in Python."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import ByT5Tokenizer, CanineTokenizer, PreTrainedTokenizerFast

from mllm.core.errors import Failure
from mllm.models import prompts, scratch
from mllm.models.families import classifier

TOKENIZER = scratch.train_tokenizer(["some words to make a vocabulary of: good bad very bad 1 10"] * 3, 300, 60)
SPEC = {"template": "R: {review}\nIs it {labels}?", "words": {}, "chat": False}


def of_words(*words: str, **more):
    """Make a tokenizer that knows only these words."""
    vocabulary = {w: i for i, w in enumerate(["<unk>", "</s>", *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="</s>", **more)


def lower(text: str):
    from tokenizers import normalizers

    tokenizer = of_words("good", "bad", "very", text)
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    return tokenizer


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize(
    ("tokenizer", "words", "message"),
    [
        (lower("fine"), ("good", "Good", "bad"), "gives 'good' and 'Good' the same tokens"),
        (of_words("good", "bad"), ("good", "sogar", "bad"), "has no token for 'sogar'"),
        (of_words("very", "good"), ("very good", "very  good"), "gives 'very good' and 'very  good' the same tokens"),
        (of_words("good"), ("good", ""), "has no token for ''"),
    ],
)
def test_label_words_that_cannot_be_told_apart_are_both_named(tokenizer, words, message, ended):
    for space in ("", " "):
        prompt = prompts.Prompt("R: ", " good or", tuple(space + w for w in words))
        with pytest.raises(Failure, match=message):
            prompts.answers(tokenizer, prompt, ended)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('only one turn, please') }}", "refuses 1 turns of user and assistant: only one turn, please"),
        ("{{ messages[0].content.nothing.at.all }}", "refuses 1 turns"),
        ("{% for m in messages %}{{ m.content", "refuses 1 turns"),
        ("{{ messages | length }}", "chat template changes the user's words"),
    ],
)  # fmt: skip
def test_a_chat_template_that_refuses_is_named(template, message):
    tokenizer = scratch.train_tokenizer(["good bad"] * 3, 300, 60)
    tokenizer.chat_template = template
    with pytest.raises(Failure, match=message):
        prompts.build(SPEC | {"chat": True}, "t", ["bad", "good"], tokenizer, True)


@pytest.mark.parametrize("tokenizer", [ByT5Tokenizer(), CanineTokenizer(), TOKENIZER], ids=["byt5", "canine", "fast"])
def test_long_reviews_are_cut_by_any_tokenizer_and_counted(tokenizer):
    prompt = prompts.Prompt("R: ", "\nIs it?", ("good", "bad"))
    texts = ["word " * 400, "薬" * 300, "a short one"]
    ids, cut = prompts.encode(tokenizer, prompt, texts, 60)
    assert cut == 2 and all(len(row) <= 60 for row in ids)
    for text, row in zip(texts, ids, strict=True):
        read = tokenizer.decode(row, skip_special_tokens=True)
        kept = read.removeprefix("R: ").removesuffix("\nIs it?").rstrip("\ufffd")
        assert read.startswith("R: ") and read.endswith("\nIs it?") and text.startswith(kept)
    assert len(ids[0]) >= 55
    with pytest.raises(Failure, match="the prompt alone has"):
        prompts.encode(tokenizer, prompts.Prompt("very bad " * 50, "?", ("a", "b")), texts, 60)


@pytest.mark.parametrize("tokenizer", [ByT5Tokenizer(), CanineTokenizer(), TOKENIZER], ids=["byt5", "canine", "fast"])
def test_cut_reviews_of_a_classifier_are_counted_by_any_tokenizer(tokenizer):
    tokenizer.model_max_length = 40
    ids, cut = classifier.encode(tokenizer, ["word " * 400, "short", "", "薬" * 300])
    assert cut == 2 and all(0 < len(row) <= 40 for row in ids)
