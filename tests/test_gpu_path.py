"""Test without a GPU what differs with one: number formats, memory, devices, requested resources."""

import argparse
import copy
import gc
import json
import re
import runpy
import sys
import weakref
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from transformers.trainer_utils import set_seed

import merge
import predict
from conftest import SCRIPTS, Project, write_split
from fake_gpu import FakeGpu
from mllm.core import compute, gpu
from mllm.core.errors import Failure
from mllm.merging.merge import Merge
from mllm.merging.recipe_file import mergekit_yaml
from mllm.models import cards, checkpoint_files, processes, scratch, trainer, training, training_rows
from mllm.prediction import one_task, prediction_tables, run_model, speed
from mllm.reporting import exported
from tiny_models import make_models, recipe_of, tiny_bert, tiny_gpt2, tiny_llama

NAMES = ["bad", "good"]
TASK = {"name": "t", "label": "sentiment"}
TEXTS = [f"{'good great' if i % 2 else 'bad awful'} pill {i} {'word ' * (i % 7)}" for i in range(120)]
PROMPT = {"template": "R: {review}\nIs it {labels}?", "words": {}, "chat": False, "score": "likelihood", "examples": 4}
HYPER = {"steps": 4, "learning_rate": 1e-3, "batch_size": 16, "weight_decay": 0.0, "warmup": 0.0, "seed": 3}


def test_tests_do_not_see_a_gpu():
    """A scorer moves its model to the GPU; the tests' references stay on the CPU."""
    assert not torch.cuda.is_available()


# ── Exports ──


def far_from_uniform(model):
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(4 if p.dim() > 1 else 1)
    return model


@pytest.fixture(scope="module")
def asked_model(tmp_path_factory):
    """Make a language model's folder, reviews, and bfloat16 predictions with four examples, as a GPU job writes them."""
    root = tmp_path_factory.mktemp("export")
    labels = [i % 2 for i in range(len(TEXTS))]
    numbers = range(len(TEXTS))
    frame = pl.DataFrame({"review_id": numbers, "group": numbers, "review": TEXTS, "label_t": labels})
    (root / "data").mkdir()
    write_split(root / "data", NAMES, train=frame[:40], valid=frame[40:80], test=frame[80:])
    torch.manual_seed(5)
    config = copy.deepcopy(tiny_llama().config)
    config.vocab_size, config.max_position_embeddings = 300, 128
    model = far_from_uniform(type(tiny_llama())(config))
    card = cards.Base(family="causal", task="t", model={"prompt": PROMPT}, seed=5)
    checkpoint_files.save(model, scratch.train_tokenizer(TEXTS, 300, 128), root / "model", card)
    (root / "predictions").mkdir()
    arguments = {"model": root / "model", "data": root / "data", "task": "t", "names": None, "prompt": None, "first_layers": 0, "threads": 1, "gpus": 1, "dtype": "bfloat16",
                 "seed": 3, "shards": None, "tokens": None, "checkpoint_seconds": 9, "output": root / "predictions/m.parquet",
                 "cost": root / "predictions/m.cost.json"}  # fmt: skip
    predict.main(argparse.Namespace(**arguments))
    return root


def test_an_export_is_checked_as_it_was_predicted(asked_model):
    """The export predicts in bfloat16 with its examples: float32 is another model, no examples another question."""
    arguments = SimpleNamespace(results=asked_model, experiment={"seed": 3, "tasks": {"t": TASK}})
    row = {"task": "t", "candidate": "m", "dtype": "bfloat16"}
    assert "in bfloat16 (largest difference 0.0e+00)" in exported.check(asked_model / "model", row, arguments)
    others = SimpleNamespace(results=asked_model, experiment={"seed": 4, "tasks": {"t": TASK}})
    assert "difference 0.0e+00" not in exported.check(asked_model / "model", row, others)
    file = asked_model / "predictions/m.parquet"
    recorded = pl.read_parquet(file)
    columns = prediction_tables.logp_columns(recorded)
    try:
        recorded.with_columns(pl.col(columns) * 0.5).write_parquet(file)
        with pytest.raises(Failure, match=r"expected at most 0\.03 in bfloat16"):
            exported.check(asked_model / "model", row, arguments)
    finally:
        recorded.write_parquet(file)


def test_a_cpu_does_not_go_on_from_a_gpus_shards(monkeypatch):
    """A GPU has other batches: reused shards would put rows in wrong places."""
    keys = set()
    for device in ("cpu", "cuda"):
        monkeypatch.setattr(gpu, "device", lambda device=device: device)
        keys.add(one_task.shards_key("identity"))
    assert len(keys) == 2


# ── Training ──


def fine_tune(model, folder, lora=None, **hyper):
    tokenizer = scratch.train_tokenizer(TEXTS, 300, 16)
    numbers = range(len(TEXTS))
    frame = pl.DataFrame({"review_id": numbers, "review": TEXTS, "label_t": [i % 3 for i in numbers]})
    hyper = {**HYPER, **hyper, "lora": lora}
    card = {"family": "classifier", "task": "t"}
    reviews = training_rows.prepare({"train": frame, "valid": frame[:0]}, ["a", "b", "c"], tokenizer, card, hyper)
    return training.fine_tune(model, tokenizer, reviews, "classifier", hyper, training.Checkpoints(folder, 300))


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


@pytest.mark.parametrize("lora", [None, {"rank": 4, "alpha": 8.0, "dropout": 0.0}], ids=["full", "lora"])
def test_smaller_parts_have_the_same_loss_and_gradients(lora, tmp_path, monkeypatch):
    """Cover adapters too: the Trainer looks inside them for the model that divides by the number of parts."""
    found = {}
    train_step = training.FamilyTrainer.training_step
    for parts in (1, 4):

        def limited(self, model, inputs, *more, parts=parts, **named):
            if len(inputs["labels"]) > 16 // parts:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return train_step(self, model, inputs, *more, **named)

        monkeypatch.setattr(training.FamilyTrainer, "training_step", limited)
        logged = []
        log = training.FamilyTrainer.log
        monkeypatch.setattr(
            training.FamilyTrainer,
            "log",
            lambda self, logs, *a, log=log, to=logged: to.append(logs) or log(self, logs, *a),
        )
        set_seed(0)
        _, facts = fine_tune(without_dropout(tiny_bert()), tmp_path / str(parts), lora=lora)
        assert facts["batch_parts"] == parts
        found[parts] = [(p["loss"], float(p["grad_norm"])) for p in logged if "loss" in p]
        monkeypatch.setattr(training.FamilyTrainer, "log", log)
    assert len(found[1]) == 4
    np.testing.assert_allclose(found[4], found[1], rtol=2e-2)


def test_nothing_of_a_training_that_ran_out_of_memory_stays(tmp_path, monkeypatch):
    """A failed try's Trainer, optimizer and gradients are freed first: Adam's moments are twice the weights."""
    seen = []
    make = training._trainer

    def watched(learner, *more):
        if seen:
            assert [ref() for ref in seen] == [None, None], "the first Trainer or its optimizer is still there"
            assert all(p.grad is None for p in learner.model.parameters())
        made = make(learner, *more)
        if not seen:
            step = type(made).training_step

            def training_step(self, *given):
                loss = step(self, *given)
                seen.append(weakref.ref(self.optimizer.optimizer))
                monkeypatch.setattr(type(self), "training_step", step)
                raise torch.OutOfMemoryError(f"CUDA out of memory after a loss of {loss}.")

            monkeypatch.setattr(type(made), "training_step", training_step)
            seen.append(weakref.ref(made))
        return made

    monkeypatch.setattr(training, "_trainer", watched)
    gc.disable()  # they must not be freed by chance
    try:
        _, facts = fine_tune(tiny_bert(), tmp_path)
    finally:
        gc.enable()
    assert facts["batch_parts"] == 2 and len(seen) == 2


def test_no_step_waits_for_the_gpu(tmp_path):
    arguments = trainer.arguments({**HYPER, "epochs": 1}, 100, True, 2, tmp_path)
    assert not arguments.logging_nan_inf_filter
    assert (arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps) == (8, 2)


def test_making_a_base_uses_one_gpu(tmp_path, monkeypatch):
    """The Trainer would use all GPUs that it sees, each with a part of every batch."""
    seen = {}

    def from_scratch(*_):
        import os

        seen["gpus"] = os.environ["CUDA_VISIBLE_DEVICES"]
        raise Failure("seen")

    monkeypatch.setattr(scratch, "from_scratch", from_scratch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    numbers = range(len(TEXTS))
    write_split(
        tmp_path, NAMES, train=pl.DataFrame({"review_id": numbers, "review": TEXTS, "label_t": [0] * len(TEXTS)})
    )
    spec = json.dumps({"source": "scratch", "family": "classifier", "pretrain": {"steps": 1}})
    arguments = ["prepare_base.py", "--model", spec, "--data", str(tmp_path), "--task", "t", "--seed", "1",
                 "--output", str(tmp_path / "out")]  # fmt: skip
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit, match="seen"):
        runpy.run_path(str(SCRIPTS / "prepare_base.py"), run_name="__main__")
    assert seen == {"gpus": "2"}


def test_each_process_asks_its_own_gpu_alone(tmp_path, monkeypatch):
    """Asking another GPU makes a context on it, some 500 MB of its memory."""
    asked = []
    for name, value in {
        "is_available": lambda: True, "set_device": lambda i: asked.append(("set", i)), "current_device": lambda: 1,
        "get_device_capability": lambda: (9, 0), "get_device_name": lambda: "Some GPU", "device_count": lambda: 2,
        "get_arch_list": lambda: ["sm_90"], "mem_get_info": lambda i: asked.append(("memory", i)) or (2**30, 2**31),
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
    processes._process(1, lambda _: compute.gpu_problem(10), argparse.Namespace(), 2, 1, str(tmp_path))
    assert asked == [("set", 1), ("memory", 1)]


# ── Number formats ──


def test_emulated_bfloat16_is_not_taken(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    assert run_model.dtype_of("auto") == run_model.dtype_of("float32") == "float32"
    with pytest.raises(Failure, match=r"Some GPU: cannot compute in bfloat16 \(found sm_75, expected sm_80"):
        run_model.dtype_of("bfloat16")


def test_peak_is_measured_on_random_numbers(monkeypatch):
    seen = []
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda self, other: seen.append((self, other)) or self)
    assert speed.peak_flops("float32", seconds=0) > 0
    assert all(tensor.unique().numel() > 1000 for tensor in seen[0])


def test_attention_is_never_cudnns():
    torch.backends.cuda.enable_cudnn_sdp(True)
    run_model.make_ready(tiny_bert())
    assert not torch.backends.cuda.cudnn_sdp_enabled()


# ── Merges ──


def test_a_merge_uses_a_gpu_only_where_it_is_told_to(tmp_path, monkeypatch):
    models = make_models(tiny_gpt2, tmp_path / "models")
    devices = []

    class Stopped(Exception):
        pass

    def looked_at(recipe, folders, donor, device):
        devices.append(device)
        raise Stopped

    monkeypatch.setattr("mllm.merging.merge.Merge", looked_at)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(compute, "gpu_problem", lambda *_: "too old")
    recipe = recipe_of({"method": "linear"})
    told = [
        argparse.Namespace(recipe=recipe, models=models, base="base", gpus=n, kept=None, output=tmp_path / "out")
        for n in (0, 1)
    ]
    with pytest.raises(Stopped):
        merge.main(told[0])
    with pytest.raises(Failure, match="too old"):  # not torch's own message for a card without code
        merge.main(told[1])
    monkeypatch.setattr(compute, "gpu_problem", lambda *_: "")
    with pytest.raises(Stopped):
        merge.main(told[1])
    assert devices == ["cpu", "cuda"]


def test_a_recipe_says_on_which_device_it_was_made(tmp_path):
    models = make_models(tiny_gpt2, tmp_path)
    folders = {name: models / name for name in ("base", "a", "b", "c")}
    made = {}
    for device in ("cpu", "cuda"):
        one = Merge(recipe_of({"method": "task_arithmetic"}), folders, folders["base"], device)
        made[device] = mergekit_yaml(one, folders).splitlines()[0]
    assert "mergekit-yaml mergekit.yaml OUTPUT --cuda " in made["cuda"] and "--cuda" not in made["cpu"]
    seeded = recipe_of({"method": "dare_linear", "density": 0.5, "seed": 1})  # random methods stay on the CPU
    assert "--cuda" not in mergekit_yaml(Merge(seeded, folders, folders["base"], "cuda"), folders)


# ── Requested resources ──


ASK = """

from snakemake.iocontainers import Wildcards

for name, values in {"prepare_base": {"start": "base-sentiment"}, "merge": {"merge": next(iter(GRID.merges))}}.items():
    print("ASKS", name, workflow.get_rule(name).expand_resources(Wildcards(fromdict=values), [], 1)["gpu"])
"""


def test_jobs_ask_for_a_gpu_where_they_compute_on_one(project: Project, monkeypatch):
    """Making a base requests a GPU only if it trains; merging requests one only on demand."""
    monkeypatch.setenv("MLLM_GPUS", "1")
    with (project.folder / "Snakefile").open("a") as file:
        file.write(ASK)
    base = ["-n", "--configfile", "config/demo.yaml", "--cores", "2"]
    project.edit("config/demo.yaml", "    vocabulary: 900", "    pretrain: {steps: 9}\n    vocabulary: 900")
    printed = project.snakemake(*base)
    assert "ASKS prepare_base 1\nASKS merge 0\n" in printed
    project.edit("config/demo.yaml", "    pretrain:", "    #")
    printed = project.snakemake(*base, "-p", "--set-resources", "merge:gpu=1")
    assert "ASKS prepare_base 0\nASKS merge 1\n" in printed
    assert "merge.py" in printed and re.search(
        r"--gpus 1 --kept \S+ --output \$\(dirname results/demo/merges/", printed
    )


def test_heads_on_a_gpu_get_keys_of_their_own():
    """As keys of one head, expanded; not copied where they are their own, or on a CPU."""
    seen = []
    attend = gpu.own_keys(lambda q, k, v, **_: seen.append((k.stride(), v.stride())) or q)
    with FakeGpu():
        for device in ("cuda", "cpu"):
            q = torch.zeros(2, 4, 65, 16, device=device)
            one = torch.zeros(2, 1, 65, 16, device=device).expand(-1, 4, -1, -1)
            attend(q, one, one, attn_mask=None)
            attend(q, q.transpose(2, 3).transpose(2, 3), q)
    whole, shared = (4 * 65 * 16, 65 * 16, 16, 1), (65 * 16, 0, 16, 1)
    assert seen == [(whole, whole), (whole, whole), (shared, shared), (whole, whole)]


def test_attention_is_settled_once(monkeypatch):
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", plain := lambda *_, **__: "found")
    for _ in range(2):
        gpu.settle_attention()
    settled = torch.nn.functional.scaled_dot_product_attention
    assert settled.__wrapped__ is plain
    assert settled(*torch.zeros(3, 1)) == "found"
