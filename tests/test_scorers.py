"""Compare language models' label scores with each label scored by itself, for all kinds of labels, reviews and batches."""

import copy
import json
from dataclasses import replace
from itertools import product

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    T5ForConditionalGeneration,
)

from conftest import run_script, write_split
from mllm.core import compute
from mllm.core.errors import Failure
from mllm.evaluation import leaderboard, score_files, scores
from mllm.experiment import yaml_files
from mllm.models import families, loading, prompt_priors, prompts, scorers, scratch, tokens
from mllm.models.families import causal
from mllm.models.families.classifier import ClassifierScorer
from mllm.models.label_tree import label_tree, one_begins_another
from mllm.prediction import costs, run_model  # fmt: skip
from mllm.prediction.shards import Shards
from tiny_models import predicted, t5_config

LONGEST = 120
TOKENIZER = scratch.train_tokenizer(["some words to make a vocabulary of: good bad very bad 1 10"] * 3, 300, LONGEST)
SPEC = {"template": "R: {review}\nIs it {labels}?", "words": {}, "chat": False, "score": "likelihood", "examples": 0}
WORDS = {
    "single": ["good", "bad"],
    "several tokens": ["good", "bad", "very bad", "quite unheard of"],
    "prefixes": ["1", "10", "2"],
    "ratings": [str(i) for i in range(1, 11)],
}
ODD = [
    "",
    " ",
    "a",
    "word " * 400,
    "😀 naïve 薬 лекарство",
    "\n\n",
    "<|endoftext|>",
    *(f"pill {i} " * i for i in range(1, 9)),
]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """These models are too small for several threads, which only wait for each other."""
    number = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(number)


def tiny_causal(kind: str):
    if kind == "gpt2":
        config = GPT2Config(
            vocab_size=300, n_positions=128, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
        )
        return GPT2LMHeadModel(config)
    config = LlamaConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=48, max_position_embeddings=128, tie_word_embeddings=kind == "llama tied",
    )  # fmt: skip
    return LlamaForCausalLM(config)


def model_of(kind: str):
    torch.manual_seed(1)
    if kind.startswith("t5"):
        model = T5ForConditionalGeneration(t5_config(tie_word_embeddings=kind == "t5 tied", pad_token_id=1))
    else:
        model = tiny_causal(kind)
    with torch.no_grad():  # far from uniform, so that the compared scores vary
        for p in model.parameters():
            if p.dim() > 1:
                p.mul_(1 if kind.startswith("t5") else 3)
    return model.eval()


def scorer_of(kind: str, words: list[str], **spec):
    model = model_of(kind)
    card = {"family": "text2text" if kind.startswith("t5") else "causal", "task": "t", "model": {"prompt": SPEC | spec}}
    return families.load(card["family"]).scorer(card, model, TOKENIZER, words)


def one_by_one(scorer, texts):
    """Score each label of each review in a separate pass, by the model's own loss, without padding."""
    rows = []
    with torch.inference_mode():
        for ids in scorer.encode(texts)[0]:
            row = []
            for label in scorer.labels:
                if scorer.model.config.is_encoder_decoder:
                    found = scorer.model(input_ids=torch.tensor([ids]), labels=torch.tensor([label]))
                else:
                    targets = torch.tensor([[-100] * len(ids) + label])
                    found = scorer.model(input_ids=torch.tensor([ids + label]), labels=targets)
                row.append(-float(found.loss) * len(label))
            rows.append(row)
    return torch.log_softmax(torch.tensor(rows), -1).numpy()


KINDS = ["t5 tied", "t5 untied", "llama", "llama tied", "gpt2"]


@pytest.mark.parametrize(("kind", "words"), product(KINDS, WORDS))
def test_labels_scored_together_are_as_each_by_itself(kind, words, monkeypatch):
    scorer = scorer_of(kind, WORDS[words])
    expected = one_by_one(scorer, ODD)
    assert expected.std() > 0.05
    for budget in (1, 200, 100_000):
        monkeypatch.setitem(run_model.TOKENS_PER_BATCH, "cpu", budget)
        np.testing.assert_allclose(predicted(scorer, ODD), expected, rtol=2e-5, atol=1e-5)
        np.testing.assert_allclose(predicted(scorer, ODD[::-1])[::-1], expected, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_first_tokens_are_the_next_token_among_the_labels(kind):
    scorer = scorer_of(kind, WORDS["several tokens"], score="first_token")
    firsts, plain = [label[0] for label in scorer.labels], model_of(kind)
    found = predicted(scorer, ODD)
    with torch.inference_mode():
        for ids, row in zip(scorer.encode(ODD)[0], found, strict=True):
            start = {"decoder_input_ids": torch.tensor([[0]])} if kind.startswith("t5") else {}
            logits = plain(input_ids=torch.tensor([ids]), **start).logits[0, -1]
            np.testing.assert_allclose(row, logits[firsts].log_softmax(-1), rtol=2e-5, atol=1e-5)
    with pytest.raises(Failure, match="two labels begin with the same token"):
        scorer_of(kind, WORDS["ratings"], score="first_token")


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_what_all_prompts_begin_with_is_computed_once(kind):
    scorer = scorer_of(kind, WORDS["several tokens"], template="Answer good or bad. " * 4 + "{review}\n?")
    texts = ["", "a", "some words 薬", "very bad " * 3]
    expected = one_by_one(scorer, texts)
    np.testing.assert_allclose(predicted(scorer, texts), expected, rtol=2e-5, atol=1e-5)
    known = scorer._prefix
    assert len(known) >= causal.WORTH_KEEPING
    assert all(ids[: len(known)] == known and len(ids) > len(known) + 1 for ids in scorer.encode(texts)[0])
    with torch.inference_mode():  # a prompt with a single token beyond the common beginning
        short = [*known, 5]
        np.testing.assert_allclose(scorer.score([short])[0], scorer.plain(short, scorer.labels), rtol=2e-5, atol=1e-4)
    scorer._prefix[0] += 1  # prompts do not begin so: the scores are still right, only slower
    with torch.inference_mode():
        slow = scorer.score(scorer.encode(texts)[0]).log_softmax(-1).numpy()
    np.testing.assert_allclose(slow, expected, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_a_classifier_needs_no_mask_where_no_token_sees_later_ones(causal):
    torch.manual_seed(2)
    sizes = {"vocab_size": 300, "num_labels": 3, "pad_token_id": 1}
    if causal:
        model = GPT2ForSequenceClassification(GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=128, **sizes))
    else:
        model = BertForSequenceClassification(
            BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, **sizes)
        )
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(6 if p.dim() > 1 else 1)
    scorer = ClassifierScorer(model.eval(), TOKENIZER)
    found = predicted(scorer, ODD)
    assert found.std(0).min() > 0.05
    with torch.inference_mode():
        for ids, row in zip(scorer.encode(ODD)[0], found, strict=True):
            alone = model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long))
            np.testing.assert_allclose(row, alone.logits[0].log_softmax(-1), rtol=2e-5, atol=1e-5)
    _, mask = scorers.padded([[5, 6], [7]], 1, "cpu")
    padded_without = model(input_ids=torch.tensor([[7, 8, 1, 1]])).logits
    alone = model(input_ids=torch.tensor([[7, 8]])).logits
    assert mask.tolist() == [[True, True], [True, False]]
    assert scorer._causal == causal == torch.allclose(padded_without, alone, atol=1e-5)


def test_a_tokenizer_that_ends_every_text_does_not_end_the_prompt():
    from tokenizers.processors import TemplateProcessing

    ending = copy.deepcopy(TOKENIZER)
    token = ending.eos_token
    ending.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"$A {token}", special_tokens=[(token, ending.eos_token_id)]
    )
    assert ending("a")["input_ids"][-1] == ending.eos_token_id
    prompt = prompts.Prompt("R: ", "\nIs it?", (" good", " bad"))
    labels = prompts.answers(TOKENIZER, prompt, ended=False)
    rows = causal.CausalScorer(model_of("gpt2"), ending, prompt, labels).encode(["fine", ""])[0]
    assert rows == causal.CausalScorer(model_of("gpt2"), TOKENIZER, prompt, labels).encode(["fine", ""])[0]


def test_a_gpu_that_was_given_and_is_not_there(monkeypatch):
    monkeypatch.setattr(compute, "has_gpu", lambda: False)
    for name in ("MLLM_ALLOW_CPU", "CUDA_VISIBLE_DEVICES", "SLURM_GPUS_ON_NODE", "SLURM_JOB_GPUS"):
        monkeypatch.delenv(name, raising=False)
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert compute.gpu_problem() == ""
    monkeypatch.setenv("SLURM_JOB_GPUS", "0")
    assert "Slurm gave this job a GPU (0), but torch" in compute.gpu_problem()
    monkeypatch.setenv("MLLM_ALLOW_CPU", "1")
    assert compute.gpu_problem() == ""


def test_a_gpu_that_is_too_small_or_too_old(monkeypatch):
    for name, value in {
        "is_available": True, "current_device": 0, "get_device_capability": (9, 0), "get_device_name": "Some GPU", "device_count": 2,
        "get_arch_list": ["sm_75", "sm_80", "sm_90"], "mem_get_info": (2**30, 2**31),
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    assert compute.gpu_problem(1000) == compute.gpu_problem(2000, gpus=2) == ""
    few = "Some GPU: too little free memory for the model"
    assert compute.gpu_problem(1100).startswith(f"{few} (found 1,024 MB, expected at least 1,100 MB)")
    assert compute.gpu_problem(2100, gpus=2).startswith(f"{few} (found 2,048 MB, expected at least 2,100 MB)")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 0))
    assert "has no code for it (found sm_70, expected one of" in compute.gpu_problem()


def test_batches_hold_every_review_once_and_little_padding():
    lengths = list(np.random.default_rng(0).integers(1, 400, 1000))
    batches = list(run_model._batches(lengths, 1024))
    assert sorted(i for batch in batches for i in batch) == list(range(1000))
    for batch in batches:
        read = [lengths[i] for i in batch]
        assert len(batch) == 1 or max(read) * len(read) <= 1024
        assert sum(read) >= (1 - run_model.PADDING) * max(read) * len(read)


def test_a_label_that_begins_another_is_ended():
    assert scorer_of("gpt2", WORDS["single"]).labels[0][-1] != TOKENIZER.eos_token_id
    assert all(label[-1] == TOKENIZER.eos_token_id for label in scorer_of("t5 tied", WORDS["single"]).labels)
    assert one_begins_another([[1, 2], [3], [1]]) and not one_begins_another([[1, 2], [3], [1, 4]])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4), min_size=1, max_size=6, unique_by=tuple))
def test_the_tree_holds_every_label(labels):
    tree = label_tree(labels)
    tokens = [None, *tree.tokens]
    for label, path in zip(labels, tree.paths, strict=True):
        assert [token for _, token in path] == label
        for i, (node, _) in enumerate(path):
            behind = [n for n in range(len(tokens)) if tree.sees[node][n]]
            assert [tokens[n] for n in sorted(behind, key=lambda n: tree.depths[n])] == [None, *label[:i]]
    assert len(tokens) == len({tuple(label[:i]) for label in labels for i in range(len(label))})
    with pytest.raises(ValueError, match="different"):
        label_tree([*labels, labels[0]])


@pytest.mark.parametrize("kind", ["t5 tied", "llama"])
def test_long_reviews_are_cut_and_the_prompt_stays_whole(kind):
    scorer = scorer_of(kind, WORDS["single"])
    short = "a little text "
    for text in ("word " * 400, "薬" * 300, "a" * 999, "word" + " " * 900):
        (ids, _), cut = scorer.encode([text, short])
        assert cut == 1 and len(ids) <= scorer.longest
        read = TOKENIZER.decode(ids)
        assert read.startswith("R: ") and read.rstrip().endswith("Is it good, bad?")
        kept = read.removeprefix("R: ").removesuffix("\nIs it good, bad?").rstrip("\ufffd")
        assert text.startswith(kept)
        if text.startswith("word w"):
            assert len(ids) >= scorer.longest - 2  # no more is lost than needs to be
    with pytest.raises(Failure, match="the prompt alone has"):
        scorer_of(kind, WORDS["single"], template="very " * 200 + "{review}").encode([short])


def test_examples_stand_before_the_question_and_are_drawn_by_the_seed():
    reviews, labels = [f"review number {i}{' long' * (i % 5)}" for i in range(60)], [i % 3 for i in range(60)]
    drawn = prompts.draw_examples(reviews, labels, 3, 6, 5)
    assert drawn == prompts.draw_examples(reviews, labels, 3, 6, 5) != prompts.draw_examples(reviews, labels, 3, 6, 6)
    assert sorted(k for _, k in drawn) == [0, 0, 1, 1, 2, 2]
    assert all(labels[reviews.index(text)] == k for text, k in drawn)
    prompt = prompts.build(SPEC, "t", ["bad", "so", "good"], TOKENIZER, True, drawn[:1])
    text, label = drawn[0]
    word = ["bad", "so", "good"][label]
    assert prompt.before == f"R: {text}\nIs it bad, so, good? {word}\n\nR: "


def test_chat_templates():
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    tokenizer = scratch.train_tokenizer(["good bad"] * 3, 300, LONGEST)
    with pytest.raises(Failure, match="no chat template"):
        prompts.build(SPEC | {"chat": True}, "t", ["bad", "good"], tokenizer, True)
    tokenizer.chat_template = template
    prompt = prompts.build(SPEC | {"chat": True}, "t", ["bad", "good"], tokenizer, True, [("nice", 1)])
    assert prompt.before + "it" + prompt.after == (
        "<user>R: nice\nIs it bad, good?</s><assistant>good</s><user>R: it\nIs it bad, good?</s><assistant>"
    )
    assert prompt.words == ("bad", "good") and not prompt.special_tokens


def test_an_architecture_that_counts_otherwise_is_refused(monkeypatch):
    scorer = scorer_of("gpt2", WORDS["several tokens"])
    forward = scorer.model.forward
    monkeypatch.setattr(scorer.model, "forward", lambda *a, position_ids=None, **k: forward(*a, **k))
    with pytest.raises(Failure, match="is not supported"):
        predicted(scorer, ["a", "good pill"])


@pytest.mark.parametrize("padding", [True, False])
def test_an_architecture_that_sees_otherwise_is_refused(padding):
    """Windows hide a long prompt's beginning, and convolutions read padding: each is right for a single short review."""
    torch.manual_seed(1)
    common = {
        "vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
        "intermediate_size": 48, "max_position_embeddings": 128,
    }  # fmt: skip
    if padding:
        config = Lfm2Config(**common, layer_types=["conv", "full_attention"], block_ff_dim=48, full_attn_idxs=[1])
        model = Lfm2ForCausalLM(config)
    else:
        model = MistralForCausalLM(MistralConfig(**common, sliding_window=32))
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.mul_(5)
    card = {"family": "causal", "task": "t", "model": {"prompt": SPEC}}
    scorer = families.load("causal").scorer(card, model.eval(), TOKENIZER, WORDS["single"])
    with torch.inference_mode():
        scorer.prepare(tokens.encode(scorer, ["a"]))  # nothing to be seen of it
    with pytest.raises(Failure, match="is not supported"):
        predicted(scorer, ["a", "pill " * 25])


@pytest.mark.parametrize("kind", ["t5 tied", "llama", "gpt2"])
def test_a_scorer_follows_its_model_to_another_device(kind, monkeypatch):
    """They are made while the model is on the CPU, and it then goes to a GPU; this test's device does no arithmetic."""
    scorer = scorer_of(kind, WORDS["several tokens"])
    ids = scorer.encode(["a", "b"])[0]
    # It would read masks, which have no values here, to leave them out if they hide nothing.
    monkeypatch.setattr("transformers.masking_utils._ignore_bidirectional_mask_sdpa", lambda *a, **k: False)
    scorer.model.to("meta")
    with torch.inference_mode():
        found = scorer.score(ids)
    assert found.device.type == "meta" and found.shape == (2, 4)


def test_tokenizers_that_cut_at_other_ends_do_not_read_alike():
    other = copy.deepcopy(TOKENIZER)
    assert tokens.reading(other) == tokens.reading(TOKENIZER)
    other.truncation_side = "left"
    assert tokens.reading(other) != tokens.reading(TOKENIZER)


def test_priors_are_taken_away():
    rng = np.random.default_rng(0)
    logp = np.log(rng.dirichlet([1, 2, 3], 50))
    valid = np.arange(50) < 20
    free = np.log(np.array([[0.2, 0.3, 0.5], [0.4, 0.1, 0.5]]))
    p = np.exp(logp) / [0.3, 0.2, 0.5]
    np.testing.assert_allclose(np.exp(prompt_priors.contextual(logp, free)), p / p.sum(1, keepdims=True), rtol=1e-5)
    p = np.exp(logp) / np.exp(logp[valid]).mean(0)
    np.testing.assert_allclose(np.exp(prompt_priors.batch(logp, valid)), p / p.sum(1, keepdims=True), rtol=1e-5)
    other = logp.copy()
    other[~valid] = np.log(1 / 3)
    np.testing.assert_array_equal(prompt_priors.batch(other, valid)[valid], prompt_priors.batch(logp, valid)[valid])


def test_shards_go_on_where_they_stopped_and_never_mix(tmp_path, monkeypatch):
    scorer = scorer_of("llama", WORDS["several tokens"])
    monkeypatch.setitem(run_model.TOKENS_PER_BATCH, "cpu", 60)
    whole = predicted(scorer, ODD)
    score, calls = scorer.score, []

    def stopping(batch):
        calls.append(len(batch))
        if len(calls) == 6:
            raise KeyboardInterrupt
        return score(batch)

    monkeypatch.setattr(scorer, "score", stopping)
    with pytest.raises(KeyboardInterrupt):
        predicted(scorer, ODD, Shards(tmp_path / "s", "mine", 0))
    # One check, three batches, and a fourth in progress; half a file of a killed process does not count.
    assert len(list((tmp_path / "s/mine").glob("*.npz"))) == 3
    (tmp_path / "s/mine/.3.npz.partial-1").write_bytes(b"half")
    monkeypatch.setattr(scorer, "score", lambda batch: calls.append(len(batch)) or score(batch))
    del calls[:]
    shards = Shards(tmp_path / "s", "mine", 0)
    assert np.array_equal(predicted(scorer, ODD, shards), whole)
    first = len(calls)
    del calls[:]
    predicted(scorer, ODD, Shards(tmp_path / "s", "other", 1e9))
    assert first == len(calls) - 3 and not (tmp_path / "s/mine").exists()
    shards.remove()
    assert not (tmp_path / "s").exists()


def test_candidates_that_read_alike_share_their_tokens(tmp_path):
    """The same tokenizer and prompt share one file, which the second reads; another prompt or review has its own."""
    first, second = (scorer_of(kind, WORDS["single"]) for kind in ("llama", "gpt2"))
    made = tokens.shared(first, ODD, tmp_path, "code")
    assert [made[i] for i in range(len(made))] == first.encode(ODD)[0]
    assert made.cut == 1 and list(made.lengths) == [len(made[i]) for i in range(len(made))]
    (file,) = tmp_path.iterdir()
    again = tokens.shared(second, ODD, tmp_path, "code")
    assert np.array_equal(again.flat, made.flat) and np.array_equal(again.ends, made.ends) and again.cut == 1
    np.savez(file, flat=made.flat + 1, ends=made.ends, cut=made.cut)
    assert np.array_equal(tokens.shared(second, ODD, tmp_path, "code").flat, made.flat + 1)  # it is what is read
    others = [
        (scorer_of("llama", WORDS["single"], template="Is {review} it?"), ODD),
        (scorer_of("llama", WORDS["several tokens"]), ODD),
        (scorer_of("t5 tied", WORDS["single"]), ODD),
        (ClassifierScorer(GPT2ForSequenceClassification(GPT2Config(n_embd=8, n_layer=1, n_head=1)), TOKENIZER), ODD),
        (first, ODD[:-1]), (first, [*ODD[:-2], ODD[-1], ODD[-2]]),
    ]  # fmt: skip
    for number, (scorer, texts) in enumerate(others, start=2):
        found = tokens.shared(scorer, texts, tmp_path, "code")
        assert len(list(tmp_path.iterdir())) == number
        assert [found[i] for i in range(len(found))] == scorer.encode(texts)[0]
    used = copy.deepcopy(TOKENIZER)  # as a training saves it
    used.backend_tokenizer.enable_truncation(50)
    used.backend_tokenizer.enable_padding(length=9)
    assert ClassifierScorer(others[3][0].model, used).reads_as() == others[3][0].reads_as()
    slow = copy.deepcopy(TOKENIZER)
    slow.__class__ = type("Slow", (type(slow),), {"is_fast": False})
    assert ClassifierScorer(others[3][0].model, slow).reads_as() is None


def test_many_texts_are_read_in_parts(monkeypatch):
    scorer = scorer_of("llama", WORDS["single"])
    whole = tokens.encode(scorer, ODD)
    monkeypatch.setattr(tokens, "AT_ONCE", 4)
    parts = tokens.encode(scorer, ODD)
    assert np.array_equal(parts.flat, whole.flat) and np.array_equal(parts.ends, whole.ends) and parts.cut == whole.cut
    assert len(predicted(scorer, [])) == 0


def test_a_language_model_is_asked_from_its_folder_to_its_table(tmp_path):
    texts = [f"{'good' if i % 2 else 'bad'} pill {i} {'word ' * (i % 9)}" for i in range(60)]
    frame = pl.DataFrame(
        {"review_id": range(60), "group": range(60), "review": texts, "label_t": [i % 2 for i in range(60)]}
    )
    write_split(tmp_path, ["bad", "good"], train=frame[:30], valid=frame[30:45], test=frame[45:])
    spec = {"name": "lm", "family": "causal", "source": "scratch", "architecture": "gpt2", "width": 32, "layers": 2, "heads": 2, "vocabulary": 300,
            "max_length": 128, "pretrain": None, "prompt": SPEC | {"examples": 2}}  # fmt: skip
    common = ["--data", tmp_path, "--task", "t", "--seed", 3]
    run_script("prepare_base", "--model", json.dumps(spec), *common, "--output", tmp_path / "lm")
    made = [*common, "--model", tmp_path / "lm", "--shards", tmp_path / "shards"]
    run_script("predict", *made, "--output", tmp_path / "p.parquet", "--cost", tmp_path / "p.json")
    table = pl.read_parquet(tmp_path / "p.parquet")
    columns = [[f"{kind}_{k}" for k in range(2)] for kind in ("logp", "contextual", "batch")]
    assert table.columns == ["review_id", "split", "label", *(name for kind in columns for name in kind)]
    model, tokenizer = loading.load_model(tmp_path / "lm", "causal")
    examples = prompts.draw_examples(texts[:30], frame["label_t"][:30], 2, 2, 3)
    card = json.loads((tmp_path / "lm/model.json").read_text())
    scorer = families.load(card["family"]).scorer(card, model.eval(), tokenizer, ["bad", "good"], examples)
    assert scorer.prompt.before.count("pill") == 2
    expected = one_by_one(scorer, texts[30:])
    np.testing.assert_allclose(table.select(columns[0]).to_numpy(), expected, rtol=2e-5, atol=1e-5)
    for kind in columns:
        np.testing.assert_allclose(np.exp(table.select(kind).to_numpy()).sum(1), 1, atol=1e-5)
    cost = json.loads((tmp_path / "p.json").read_text())
    assert cost["dtype"] == "float32" and cost["flops_per_review"] > 0 and 0 < cost["share_of_peak"] < 1
    assert {"tokens_per_second", "write_seconds", "cut_reviews"} <= set(cost)


def test_a_zero_shot_reference_in_the_workflow(project):
    raw = yaml_files.read_yaml(project.folder / "config/demo.yaml")
    model = raw["models"][0] | {"name": "lm", "family": "causal", "max_length": 128, "pretrain": None}
    raw |= {"data": {"source": "synthetic", "rows": 400}, "models": [*raw["models"], model]}
    raw["references"] = [{"name": "zero", "model": "lm", "train": "none"}]
    (project.folder / "config/asked.yaml").write_text(yaml.safe_dump(raw))
    target = [
        "results/demo/predictions/zero.parquet",
        "--configfile",
        "config/asked.yaml",
        "--profile",
        "profiles/local",
    ]
    wanted = {"generate_reviews": 1, "clean_reviews": 1, "split_reviews": 1, "label_reviews": 1}
    wanted |= {"prepare_base": 1, "tokenise": 1, "predict": 1}
    assert project.planned(*target) == wanted
    project.snakemake(*target)
    table = pl.read_parquet(project.folder / target[0])
    assert "batch_2" in table.columns and np.isfinite(table["contextual_0"].to_numpy()).all()
    # Each prior has its own scores beside the raw ones.
    bench = scores.Bench(project.folder / "results/demo/data", {"name": "sentiment", "label": "sentiment"}, 17)
    score = bench.score(project.folder / target[0]).scores
    test = table.filter(pl.col("split") == "test").join(bench.rows["test"], on="review_id")
    for name in ("contextual", "batch"):
        right = test.select(f"{name}_{k}" for k in range(3)).to_numpy().argmax(1) == test["label"].to_numpy()
        weights = 1 / test.select(pl.len().over("group")).to_series().to_numpy()
        found = score["priors"][name]["test"]["accuracy"]
        assert found["value"] == pytest.approx(np.average(right, weights=weights))
        assert found["low"] < found["value"] < found["high"]
    zero = {
        "candidate": "zero",
        "kind": "reference",
        "method": "zero_shot",
        "task": "t",
        "members": [],
        "parameters": {},
    }
    one = score_files.Scores(**zero, **score)
    both = [one, replace(one, candidate="other", priors={})]
    board = leaderboard.table([(scores, costs.Cost(reviews=1)) for scores in both], "macro_f1").sort(
        "candidate", descending=True
    )
    value = score["priors"]["batch"]["valid"]["macro_f1"]["value"]
    assert board["valid_batch_macro_f1"].to_list() == [value, None]
    assert not (project.folder / "results/demo/checkpoints").exists()
    # Another prompt makes another model to ask; another number format changes the predictions only.
    project.edit("config/asked.yaml", "name: lm\n", "name: lm\n  dtype: bfloat16\n")
    assert project.planned(*target) == {"predict": 1}
    project.edit("config/asked.yaml", "name: lm\n", "name: lm\n  prompt: {score: first_token}\n")
    assert project.planned(*target) == {"prepare_base": 1, "tokenise": 1, "predict": 1}
