"""Run every family and merge method on fake GPUs: a tensor left on the CPU or another GPU fails as on real ones."""

from pathlib import Path

import pytest
import torch
import transformers

from fake_gpu import fake_gpu, put, spread
from mllm.experiment import merge_entries
from mllm.merging.merge import Merge
from mllm.models import families, scratch
from mllm.models.tokens import Batch
from mllm.models.transformers_private.attention import fuse_t5_attention
from test_families import ARCHITECTURES, CASES, NAMES, PROMPT, TEXTS
from test_merging import RECIPES
from tiny_models import make_models, recipe_of, tiny_gpt2

TOKENIZER = scratch.train_tokenizer(TEXTS, 300, 64, ended=True)


def made(family: str, architecture: str):
    model = ARCHITECTURES[architecture]()
    if family == families.HEADED:
        model.config.num_labels, model.config.eos_token_id = len(NAMES), TOKENIZER.eos_token_id
        return transformers.AutoModelForSequenceClassification.from_config(model.config)
    return model


def card(family: str, **prompt):
    return {"family": family, "task": "t", "model": {"prompt": PROMPT | prompt}}


@pytest.mark.parametrize(("family", "architecture"), CASES)
def test_a_scorer_and_its_training_on_one_gpu(family, architecture):
    of = families.load(family)
    with fake_gpu() as gpu:
        model = made(family, architecture)
        scorer = of.scorer(card(family), model, TOKENIZER, NAMES)
        put(model, "cuda:0")
        with torch.inference_mode():
            scorer.score(Batch.of(scorer.encode(TEXTS[:2])[0]))  # constants are moved
            gpu.asked = 0
            found = scorer.score(Batch.of(scorer.encode(TEXTS[:3])[0]))
        # T5's classifier searches for the ends of its texts.
        assert gpu.asked == 0 or (family, architecture[:2]) == ("classifier", "t5")
        assert (found.device.type, found.shape) == ("cuda", (3, 2))
        rows, _ = of.rows(card(family), TOKENIZER, NAMES, TEXTS[:3], [0, 1, 0])
        batch = {name: values.to("cuda:0") for name, values in of.collator(model, TOKENIZER)(rows).items()}
        losses, right = of.losses(model.train(), batch)
        assert losses.device.type == right.device.type == "cuda" and losses.shape == (3,)


@pytest.mark.parametrize("score", ["likelihood", "first_token"])
@pytest.mark.parametrize(("family", "architecture"), [c for c in CASES if c[0] != families.HEADED])
def test_a_language_model_on_two_gpus(family, architecture, score):
    """The output head is on the first GPU, with the embeddings whose weights it may share; the last layers are not."""
    of, words = families.load(family), {"bad": "pill", "good": "number"}
    places = PLACES["t5" if architecture.startswith("t5") else architecture]
    with fake_gpu():
        model = spread(made(family, architecture), places)
        scorer = of.scorer(card(family, score=score, words=words), model, TOKENIZER, NAMES)
        if score == "first_token":
            scorer._answer_in_float32(scorer._constants["first"])
            scorer._narrow = True
        with torch.inference_mode():
            assert scorer.score(Batch.of(scorer.encode(TEXTS[:3])[0])).shape == (3, 2)


@pytest.mark.parametrize(("family", "architecture"), [c for c in CASES if c[0] != families.HEADED])
def test_a_bfloat16_model_answers_in_float32(family, architecture):
    """Its head multiplies in bfloat16 and adds up in float32; nothing is moved between devices for it."""
    of = families.load(family)
    with fake_gpu() as gpu:
        torch.set_default_dtype(torch.bfloat16)
        try:
            model = put(made(family, architecture), "cuda:0")
        finally:
            torch.set_default_dtype(torch.float32)
        fuse_t5_attention(model)
        scorer = of.scorer(card(family), model, TOKENIZER, NAMES)
        scorer._answer_in_float32()
        assert model.get_output_embeddings().weight.dtype == torch.bfloat16
        with torch.inference_mode():
            scorer.score(Batch.of(scorer.encode(TEXTS[:2])[0]))
            gpu.asked = 0
            found = scorer.score(Batch.of(scorer.encode(TEXTS[:3])[0]))
        assert (found.dtype, found.device.type, gpu.asked) == (torch.float32, "cuda", 0)


PLACES = {
    "llama": {"model.embed_tokens": 0, "model.rotary_emb": 0, "model.layers.0": 0, "model.layers.1": 1, "model.norm": 1,
              "lm_head": 0},
    "gpt2": {"transformer.wte": 0, "transformer.wpe": 0, "transformer.drop": 0, "transformer.h.0": 0, "transformer.h.1": 1,
             "transformer.ln_f": 1, "lm_head": 0},
    "t5": {"shared": 0, "encoder": 0, "decoder.embed_tokens": 0, "decoder.block.0": 0, "decoder.block.1": 1, "decoder.final_layer_norm": 1,
           "lm_head": 0},
}  # fmt: skip


def test_what_is_left_on_the_cpu_is_found():
    """Test the tests of this file."""
    of = families.load("causal")
    with fake_gpu():
        model = made("causal", "gpt2")
        scorer = of.scorer(card("causal"), model, TOKENIZER, NAMES)
        put(model, "cuda:0")
        model.transformer.wpe.weight = torch.nn.Parameter(model.transformer.wpe.weight.detach().to("cpu"))
        with torch.inference_mode(), pytest.raises(RuntimeError, match="same device"):
            scorer.score(Batch.of(scorer.encode(TEXTS[:3])[0]))


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return make_models(tiny_gpt2, tmp_path_factory.mktemp("models"))


PAPER = [
    {"method": "ties", "density": 0.3, "convention": "paper"}, {"method": "model_stock", "convention": "paper"},
]  # fmt: skip


@pytest.mark.parametrize("device", ["cuda:0", "cuda:1"])
def test_every_merge_method_computes_where_it_is_told_to(models, device, monkeypatch):
    """Random methods stay on the CPU: the test checks that none of their tensors goes to the GPU."""
    seen: dict[str, set[str]] = {}
    for values in [*RECIPES, *PAPER]:
        recipe = recipe_of(values)
        folders = {n: models / n for n in ("base", *recipe["members"])}
        merge = Merge(recipe, folders, models / "base", device)
        with fake_gpu(), monkeypatch.context() as patch:
            for module in ("merge", "tensor_files"):
                patch.setattr(f"mllm.merging.{module}.check_finite", lambda *_: None)  # values, which are none
            # Computed on the CPU, from full task vectors.
            patch.setattr(
                "mllm.merging.methods.ties_paper.thresholds", lambda _, members, *__: dict.fromkeys(members, 0.1)
            )
            method = merge.method

            class Watched:
                spec = method.spec

                def __call__(self, group, method=method, name=recipe["method"], **more):
                    found = method(group, **more)
                    seen.setdefault(name, set()).update(str(t.device) for t in found)
                    return found

            merge.method = Watched()
            assert all(tensor.device.type == "cpu" for _, tensor in merge.tensors())
    random = {r["method"] for r in RECIPES if "seed" in r}
    assert {name: {"cpu" if name in random else device} for name in seen} == seen
    assert len(seen) == len(merge_entries.METHODS) - 1 + 2  # mixtures of experts are not merged tensor by tensor
