"""Test on a real GPU: the CPU's numbers, finite gradients, no waiting in a batch. `make gpu` runs them; else skipped."""

import contextlib

import numpy as np
import pytest
import torch
import transformers

import test_train_tasks
from mllm.core import gpu
from mllm.merging.merge import Merge
from mllm.models import families, joint, scratch, training, training_rows
from mllm.models.tokens import Batch
from mllm.prediction import run_model
from task_models import make_task_models
from test_families import ARCHITECTURES, CASES, NAMES, PROMPT, TEXTS
from test_gpu_path import without_dropout
from test_predict_tasks import data as data
from test_predict_tasks import logp, merged, predicted_together
from test_train_tasks import CLASSES, HYPER, read
from test_train_tasks import prepare as prepare
from tiny_models import make_models, predicted, recipe_of, tiny_bert, tiny_gpt2, tiny_t5_classifier

pytestmark = pytest.mark.gpu
joint_data = test_train_tasks.data
TOKENIZER = scratch.train_tokenizer(TEXTS, 300, 64, ended=True)


@contextlib.contextmanager
def on_cpu(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(gpu, "device", lambda: "cpu")
        yield


def model_of(family: str, architecture: str, dtype=torch.float32):
    torch.manual_seed(0)
    model = ARCHITECTURES[architecture]()
    if family == families.HEADED:
        model.config.num_labels, model.config.eos_token_id = len(NAMES), TOKENIZER.eos_token_id
        model = transformers.AutoModelForSequenceClassification.from_config(model.config)
    if architecture == "t5 untied" and model.get_output_embeddings() is not None:
        # As trained ones are: drawn, it makes log-likelihoods of hundreds.
        with torch.no_grad():
            model.get_output_embeddings().weight.mul_(model.config.d_model**-0.5)
    return model.to(dtype).eval()


def scorer_of(family: str, architecture: str, dtype=torch.float32, score: str = "likelihood"):
    words = {"bad": "pill", "good": "number"}
    card = {"family": family, "task": "t", "model": {"prompt": PROMPT | {"score": score, "words": words}}}
    return families.load(family).scorer(card, model_of(family, architecture, dtype), TOKENIZER, NAMES)


@pytest.mark.parametrize(("family", "architecture"), CASES)
def test_predictions_are_the_cpus(family, architecture, monkeypatch):
    with on_cpu(monkeypatch):
        plain = predicted(scorer_of(family, architecture), TEXTS)
    np.testing.assert_allclose(predicted(scorer_of(family, architecture), TEXTS), plain, atol=1e-4)
    half = np.exp(predicted(scorer_of(family, architecture, torch.bfloat16), TEXTS))
    assert np.abs(half - np.exp(plain)).max() <= 0.03


@pytest.mark.parametrize(("family", "architecture"), [c for c in CASES if c[0] != families.HEADED])
def test_first_tokens_are_the_cpus(family, architecture, monkeypatch):
    with on_cpu(monkeypatch):
        plain = predicted(scorer_of(family, architecture, score="first_token"), TEXTS)
    found = predicted(scorer_of(family, architecture, score="first_token"), TEXTS)
    np.testing.assert_allclose(found, plain, atol=1e-4)


@pytest.mark.parametrize(("family", "architecture"), [c for c in CASES if c != ("classifier", "t5 tied")])
def test_a_batch_waits_for_nothing(family, architecture):
    if (family, architecture) == ("classifier", "t5 untied"):
        pytest.skip("T5's classifier looks for the ends of its texts")
    scorer = scorer_of(family, architecture)
    run_model.make_ready(scorer.model)
    with torch.inference_mode():
        scorer.score(Batch.of(scorer.encode(TEXTS[:9])[0]))
        torch.cuda.set_sync_debug_mode("error")
        try:
            run_model._Fetched(scorer.score(Batch.of(scorer.encode(TEXTS[:9])[0])))
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(("family", "architecture"), CASES)
def test_losses_and_gradients_are_the_cpus(family, architecture):
    """Score reviews of very different lengths, whose padding is on the left in causal models."""
    of = families.load(family)
    card = {"family": family, "task": "t", "model": {"prompt": PROMPT}}
    texts = ["a", "some words " * 5, "word " * 100]
    found = {}
    gpu.settle_attention()
    for device in ("cpu", "cuda"):
        model = model_of(family, architecture).to(device)  # in eval mode: dropout draws other numbers
        rows, _ = of.rows(card, TOKENIZER, NAMES, texts, [0, 1, 0])
        batch = {name: values.to(device) for name, values in of.collator(model, TOKENIZER)(rows).items()}
        losses, _ = of.losses(model, batch)
        losses.mean().backward()
        norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
        found[device] = [*losses.tolist(), float(norm)]
    assert np.isfinite(found["cuda"]).all()
    np.testing.assert_allclose(found["cuda"], found["cpu"], rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_attention_to_one_key_head_is_float64s(dtype):
    """Of all lengths: the fused kernel was wrong for some, where heads share their keys as one view."""
    gpu.settle_attention()
    generator = torch.Generator("cuda").manual_seed(1)
    for length in range(1, 200):
        q, k, v = (
            torch.randn(3, heads, length, 64, generator=generator, device="cuda", dtype=dtype) for heads in (2, 1, 1)
        )
        k, v = (t.expand(-1, 2, -1, -1) for t in (k, v))
        mask = torch.ones(length, length, dtype=torch.bool, device="cuda").tril()[None, None]
        attend = torch.nn.functional.scaled_dot_product_attention
        exact = attend(*(t.double() for t in (q, k, v)), attn_mask=mask)
        found = attend(q, k, v, attn_mask=mask)
        assert (found - exact).abs().max() < (1e-5 if dtype == torch.float32 else 0.03), length


def test_too_little_memory_halves_the_batches():
    whole = predicted(scorer_of("classifier", "gpt2"), TEXTS * 40)
    torch.cuda.empty_cache()
    held = torch.cuda.memory_reserved() + 40 * 2**20
    torch.cuda.set_per_process_memory_fraction(held / torch.cuda.get_device_properties(0).total_memory)
    try:
        halved = predicted(scorer_of("classifier", "gpt2"), TEXTS * 40)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    np.testing.assert_allclose(halved, whole, atol=1e-4)


METHODS = [
    {"method": "linear"}, {"method": "slerp", "members": ["b", "a"], "t": 0.3}, {"method": "task_arithmetic"},
    {"method": "ties", "density": 0.3}, {"method": "breadcrumbs", "density": 0.6}, {"method": "model_stock"},
    {"method": "sce", "select_topk": 0.3}, {"method": "karcher"}, {"method": "multislerp"}, {"method": "ram"},
    {"method": "breadcrumbs_ties", "density": 0.4, "gamma": 0.1}, {"method": "dare_ties", "density": 0.5, "seed": 1},
]  # fmt: skip


@pytest.mark.parametrize("values", METHODS, ids=lambda v: v["method"])
def test_merges_are_the_cpus(values, tmp_path):
    models, recipe = make_models(tiny_gpt2, tmp_path), recipe_of(values)
    folders = {n: models / n for n in ("base", *recipe["members"])}
    one, other = (dict(Merge(recipe, folders, models / "base", d).tensors()) for d in ("cpu", "cuda"))
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, atol=1e-6, rtol=1e-5)


# ── Training ──

LORA = {"rank": 4, "alpha": 8.0, "dropout": 0.0}


def some_training(folder, number: int = 480, longest: int = 48, make=tiny_gpt2, **hyper):
    """Fine-tune without dropout on rows of random tokens; the first token is the answer."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    rows = [{"input_ids": [10 + i % 3, *rng.integers(20, 290, rng.integers(1, longest)).tolist()], "answer": i % 3, "weight": 1.0}
            for i in range(number)]  # fmt: skip
    model = without_dropout(make())
    hyper = {
        "steps": 30,
        "learning_rate": 2e-3,
        "batch_size": 16,
        "weight_decay": 0.0,
        "warmup": 0.1,
        "seed": 3,
        **hyper,
    }
    where = training.Checkpoints(folder, hyper.pop("seconds", 1e9))
    return training.fine_tune(model, TOKENIZER, training_rows.Reviews(rows, [], 0), "classifier", hyper, where)


def of_64_tokens(width: int = 32, layers: int = 2):
    def make():
        return transformers.GPT2ForSequenceClassification(
            transformers.GPT2Config(vocab_size=300, n_positions=64, n_embd=width, n_layer=layers, n_head=width // 16, pad_token_id=1,
                                    num_labels=3))  # fmt: skip

    return make


def tiny_bert_of_64():
    return transformers.BertForSequenceClassification(
        transformers.BertConfig(vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
                                max_position_embeddings=64, num_labels=3))  # fmt: skip


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_thirty_steps_are_near_the_cpus(lora, tmp_path, monkeypatch):
    """Products are in bfloat16 there: the loss takes the same course with other numbers."""
    losses = {}
    for device in ("cuda", "cpu"):
        with monkeypatch.context() as patch:
            if device == "cpu":
                patch.setattr(torch.cuda, "is_available", lambda: False)
            _, facts = some_training(tmp_path / device, make=of_64_tokens(), lora=lora)
        losses[device] = [point["loss"] for point in facts["loss"]]
    assert len(losses["cpu"]) == 30
    np.testing.assert_allclose(losses["cuda"], losses["cpu"], atol=0.05)


@pytest.mark.parametrize("make", [of_64_tokens(), tiny_bert_of_64], ids=["gpt2", "bert"])
def test_a_training_step_waits_for_nothing(make, tmp_path, monkeypatch):
    step, count = training.FamilyTrainer.training_step, [0]

    def watched(self, *arguments, **named):
        count[0] += 1
        torch.cuda.set_sync_debug_mode("error" if count[0] > 2 else "default")
        try:
            return step(self, *arguments, **named)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(training.FamilyTrainer, "training_step", watched)
    some_training(tmp_path, make=make, steps=6)


def test_a_training_that_is_too_large_goes_in_parts(tmp_path):
    torch.cuda.empty_cache()
    limit = torch.cuda.memory_reserved() + 450 * 2**20
    torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.get_device_properties(0).total_memory)
    try:
        _, facts = some_training(tmp_path, longest=64, make=of_64_tokens(512, 4), batch_size=64, steps=4)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert facts["batch_parts"] > 1 and np.isfinite([point["loss"] for point in facts["loss"]]).all()


def test_a_killed_training_goes_on(tmp_path, monkeypatch):
    """A training resumes from its last checkpoint to the same weights, except for the GPU's order of additions."""
    whole, _ = some_training(tmp_path / "whole", make=of_64_tokens())
    step, count = training.FamilyTrainer.training_step, [0]

    def killed(self, *arguments, **named):
        count[0] += 1
        if count[0] == 20:
            raise KeyboardInterrupt
        return step(self, *arguments, **named)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training.FamilyTrainer, "training_step", killed)
        some_training(tmp_path / "killed", make=of_64_tokens(), seconds=0)
    again, facts = some_training(tmp_path / "killed", make=of_64_tokens(), seconds=0)
    assert facts["steps"] == 30 and facts["loss"][0]["step"] == 1
    for (name, one), other in zip(whole.state_dict().items(), again.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, atol=5e-3, rtol=0, msg=name)


# ── Several tasks ──


@pytest.mark.parametrize("architecture", [tiny_gpt2, tiny_bert, tiny_t5_classifier])
def test_a_model_of_several_tasks_is_the_cpus(architecture, data, tmp_path, monkeypatch):
    """Merge across tasks and predict all of them in one pass, on either device."""
    models = make_task_models(architecture, tmp_path / "models")
    values = {"method": "ties", "density": 0.6}
    with on_cpu(monkeypatch):
        plain = predicted_together(merged(models, tmp_path / "on-cpu", values), data, tmp_path / "cpu")
    found = predicted_together(merged(models, tmp_path / "on-gpu", values, gpus=1), data, tmp_path / "gpu")
    for task, table in plain.items():
        np.testing.assert_allclose(logp(found[task]), logp(table), atol=1e-4)


def test_joint_training_is_near_the_cpus(joint_data, prepare, tmp_path, monkeypatch):
    """Products are in bfloat16 on the GPU: the loss takes the same course with other numbers."""
    bases = prepare("classifier", "bert")
    classes = {task: len(names) for task, names in CLASSES.items()}
    losses = {}
    for device in ("cuda", "cpu"):
        with monkeypatch.context() as patch:
            if device == "cpu":
                patch.setattr(torch.cuda, "is_available", lambda: False)
            model, tokenizer = joint.load(bases, "classifier")
            reviews = joint.together(read(joint_data, bases, tokenizer, HYPER), classes, headed=True)
            where = training.Checkpoints(tmp_path / device, 300)
            _, facts = training.fine_tune(without_dropout(model), tokenizer, reviews, "classifier", HYPER, where)
        losses[device] = [point["loss"] for point in facts["loss"]]
    assert losses["cpu"]
    np.testing.assert_allclose(losses["cuda"], losses["cpu"], atol=0.05)
