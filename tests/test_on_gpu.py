"""On a real GPU: the CPU's numbers, finite gradients, no waiting inside a batch. `make gpu` runs these; skipped elsewhere."""

import contextlib

import numpy as np
import pytest
import torch
import transformers

from mllm.core import gpu
from mllm.merging.merge import Merge
from mllm.models import families, scratch
from mllm.models.tokens import Batch
from mllm.prediction import run_model
from test_families import ARCHITECTURES, CASES, NAMES, PROMPT, TEXTS
from tiny_models import make_models, predicted, recipe_of, tiny_gpt2

pytestmark = pytest.mark.gpu
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
    """Of reviews of very different lengths, whose padding stands left in causal models."""
    of = families.load(family)
    card = {"family": family, "task": "t", "model": {"prompt": PROMPT}}
    texts = ["a", "some words " * 5, "word " * 100]
    found = {}
    gpu.settle_attention()
    for device in ("cpu", "cuda"):
        model = model_of(family, architecture).to(device)  # in eval: dropout draws other numbers
        rows, _ = of.rows(card, TOKENIZER, NAMES, texts, [0, 1, 0])
        batch = {name: values.to(device) for name, values in of.collator(model, TOKENIZER)(rows).items()}
        losses, _ = of.losses(model, batch)
        losses.mean().backward()
        norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
        found[device] = [*losses.tolist(), float(norm)]
    assert np.isfinite(found["cuda"]).all()
    np.testing.assert_allclose(found["cuda"], found["cpu"], rtol=1e-3)


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
