"""Compare a model trained on several tasks with plain torch's gradients and, for one task, with the single training."""

import copy
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

from conftest import SCRIPTS, run_script
from mllm.core.errors import Failure
from mllm.core.files import read_json
from mllm.data import labelled
from mllm.models import (
    cards,
    checkpoint_files,
    families,
    joint,
    loading,
    task_folders,
    trainer,
    training,
    training_rows,
)
from test_families import HYPER, LORA, TEXTS, prepared
from test_families import one_thread as one_thread
from tiny_models import predicted

CLASSES = {"kind": ["word", "none", "many"], "mood": ["bad", "good"]}
CLASSIFIERS = [("classifier", a) for a in ("gpt2", "bert", "t5 tied")]
ASKED = [("text2text", "t5 tied"), ("causal", "llama")]
AUTO = {
    "classifier": AutoModelForSequenceClassification,
    "text2text": AutoModelForSeq2SeqLM,
    "causal": AutoModelForCausalLM,
}


def label_of(task: str, i: int) -> int:
    return i % 2 if task == "mood" else min(i % 17, 2)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Make reviews with a label in two tasks; some have none in the second."""
    folder = tmp_path_factory.mktemp("data")
    numbers = range(len(TEXTS))
    frame = pl.DataFrame({"review_id": numbers, "group": numbers, "review": TEXTS})
    for split, part in {"train": frame[:120], "valid": frame[120:180], "test": frame[180:]}.items():
        part.write_parquet(folder / f"{split}.parquet")
    for task, names in CLASSES.items():
        labels = [(i, label_of(task, i)) for i in numbers if task == "mood" or i % 5]
        table = pl.DataFrame(labels, ["review_id", "label"], orient="row")
        labelled.write_task(folder, task, {"names": names, "label": "sentiment"}, table)
    return folder


@pytest.fixture(scope="module")
def prepare(tmp_path_factory):
    """Make a base of an architecture for each task, once."""
    made: dict[tuple[str, str], dict[str, Path]] = {}

    def bases(family: str, architecture: str) -> dict[str, Path]:
        if (family, architecture) not in made:
            folder = tmp_path_factory.mktemp("bases")
            for task, names in CLASSES.items():
                model, tokenizer, card = prepared(family, architecture, folder / "hub", names)
                card = {
                    **card,
                    "task": task,
                    "model": {"prompt": {**card["model"]["prompt"], "template": f"{task}: {{review}}?"}},
                }
                checkpoint_files.save(model, tokenizer, folder / task, cards.Base(**card, seed=3))
            made[family, architecture] = {task: folder / task for task in CLASSES}
        return made[family, architecture]

    return bases


def read(data: Path, bases: dict[str, Path], tokenizer, hyper):
    """Return the rows that each task alone would be trained on."""
    return {
        task: training_rows.prepare(
            training_rows.reviews_of(data, task, {}), CLASSES[task], tokenizer, cards.read(folder).asked(), hyper
        )
        for task, folder in bases.items()
    }


def trained(data: Path, bases: dict[str, Path], folder: Path, **hyper):
    """Train on all tasks of some bases; return the model and the facts."""
    hyper = {**HYPER, **hyper}
    family = cards.read(next(iter(bases.values()))).family
    model, tokenizer = joint.load(bases, family)
    classes = {task: len(CLASSES[task]) for task in bases}
    reviews = joint.together(read(data, bases, tokenizer, hyper), classes, family == "classifier")
    return training.fine_tune(model, tokenizer, reviews, family, hyper, training.Checkpoints(folder, 300))


WAYS = {
    "full": {}, "lora": {"lora": LORA}, "stopped": {"early_stopping": 1, "epochs": 3.0}, "freeze": {"freeze": 1},
    "head": {"head_only": True}, "balanced": {"class_weights": "balanced"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("family", "architecture", "way"),
    [*((*case, "full") for case in [*CLASSIFIERS, *ASKED]), *(("classifier", "bert", way) for way in WAYS), ("causal", "llama", "lora")],
)  # fmt: skip
def test_one_task_is_the_training_of_one_task_bit_for_bit(family, architecture, way, data, prepare, tmp_path):
    base = prepare(family, architecture)["kind"]
    hyper = {**HYPER, **WAYS[way]}
    model, tokenizer = loading.load_model(base, family)
    reviews = read(data, {"kind": base}, tokenizer, hyper)["kind"]
    alone, facts = training.fine_tune(
        model, tokenizer, reviews, family, hyper, training.Checkpoints(tmp_path / "a", 300)
    )
    one, of_one = trained(data, {"kind": base}, tmp_path / "b", **WAYS[way])
    assert facts == of_one
    assert all(torch.equal(value, one.state_dict()[name]) for name, value in alone.state_dict().items())


def test_frozen_layers_stay_and_every_head_learns(data, prepare, tmp_path):
    bases = prepare("classifier", "bert")
    before = {n: v.clone() for n, v in joint.load(bases, "classifier")[0].state_dict().items()}
    model, _ = trained(data, bases, tmp_path, freeze=2, steps=6)
    moved = {n for n, v in model.state_dict().items() if not torch.equal(v, before[n])}
    assert moved == {n for n in before if not n.startswith(("bert.embeddings", "bert.encoder"))}


@pytest.mark.parametrize(("family", "architecture"), [*CLASSIFIERS, *ASKED])
def test_it_learns_all_tasks_and_each_folder_is_plain_transformers(family, architecture, data, prepare, tmp_path):
    bases = prepare(family, architecture)
    model, facts = trained(data, bases, tmp_path / "checkpoints", epochs=6.0, learning_rate=6e-3, early_stopping=6)
    assert facts["validation"][-1]["loss"] < 0.8 * facts["validation"][0]["loss"]
    joint.write(model, bases, tmp_path / "joint")
    right = {}
    for task, base in bases.items():
        folder = tmp_path / "joint" / task
        AUTO[family].from_pretrained(folder)
        loaded, tokenizer = loading.load_model(folder, family)  # every weight as the files hold it
        assert loaded.state_dict().keys() == loading.load_model(base, family)[0].state_dict().keys()
        scorer = families.load(family).scorer(cards.read(base).asked(), loaded.eval(), tokenizer, CLASSES[task])
        rows = labelled.labelled(data, ("test",), task)
        right[task] = (predicted(scorer, rows["review"].to_list()).argmax(1) == rows["label"].to_numpy()).mean()
    assert min(right.values()) > 0.85, right


@pytest.mark.parametrize(("family", "architecture"), [*CLASSIFIERS, *ASKED])
def test_gradients_of_a_mixed_batch_are_the_sum_of_the_tasks_own(family, architecture, data, prepare):
    """Compare with plain models of transformers, one for each task, asked review by review, without padding."""
    bases = prepare(family, architecture)
    model, tokenizer = joint.load(bases, family)
    classes = {task: len(names) for task, names in CLASSES.items()}
    plain = {task: AUTO[family].from_pretrained(folder).eval() for task, folder in bases.items()}
    apart = read(data, bases, tokenizer, HYPER)
    rows = joint.together(copy.deepcopy(apart), classes, family == "classifier").train
    chosen = [rows[i] for i in (0, 3, 5, len(apart["kind"].train) + 2, len(apart["kind"].train) + 9)]
    batch = trainer.weighted(families.load(family).collator(model, tokenizer))(chosen)
    batch.pop("weights")
    losses, _ = families.load(family).losses(model.eval(), batch)
    losses.mean().backward()
    tasks = sorted(CLASSES)
    for row, loss in zip(chosen, losses, strict=True):
        task = tasks[row["task"]]
        own = next(r for r in apart[task].train if r["input_ids"] == row["input_ids"])
        expected = likelihood(plain[task], family, own)
        torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
        (expected / len(chosen)).backward()
    named = getattr(model, "names_of_heads", [{}, {}])
    bodies = {task: dict(plain[task].named_parameters()) for task in tasks}
    for name, parameter in model.named_parameters():
        first = name.split(".")[0]
        of = [(t, {v: k for k, v in own.items()}) for t, own in zip(tasks, named, strict=True)]
        owners = [(t, back) for t, back in of if first in back] or [(t, {first: first}) for t in tasks]
        grads = [bodies[t][name.replace(first, back[first], 1)].grad for t, back in owners]
        expected = sum(g for g in grads if g is not None)
        torch.testing.assert_close(parameter.grad, expected, atol=2e-5, rtol=1e-4)


def likelihood(model, family, row):
    """Return the negative log-likelihood of one review's answer, by transformers' own loss."""
    ids = torch.tensor([row["input_ids"]])
    if family == "classifier":
        return cross_entropy(model(input_ids=ids).logits, torch.tensor([row["answer"]]))
    answer = torch.tensor([row["answer"]])
    if family == "text2text":
        return model(input_ids=ids, labels=answer).loss * answer.shape[1]
    logits = model(input_ids=ids).logits[0, -len(row["answer"]) :]
    return cross_entropy(logits, answer[0], reduction="sum")


@pytest.mark.parametrize(("family", "architecture"), CLASSIFIERS)
def test_no_head_learns_from_another_tasks_reviews(family, architecture, data, prepare, tmp_path):
    bases = prepare(family, architecture)
    model, tokenizer = joint.load(bases, family)
    rows = joint.together(read(data, bases, tokenizer, HYPER), {t: len(n) for t, n in CLASSES.items()}, True).train
    passes = []
    getattr(model, model.base_model_prefix).register_forward_hook(lambda *_: passes.append(1))
    for task, own in enumerate(model.names_of_heads):
        model.zero_grad()
        batch = trainer.weighted(families.load(family).collator(model, tokenizer))(
            [r for r in rows if r["head"] == task][:8]
        )
        batch.pop("weights")
        losses, right = families.load(family).losses(model, batch)
        assert len(passes) == task + 1, "the backbone answers once for all tasks"
        losses.sum().backward()
        assert losses.isfinite().all() and right.dtype == torch.bool
        heads = {
            name: p
            for name, p in model.named_parameters()
            if name.split(".")[0] in {h for n in model.names_of_heads for h in n.values()}
        }
        for name, p in heads.items():
            assert bool(p.grad.any()) == (name.split(".")[0] in own.values()), name


@pytest.mark.parametrize(
    ("architecture", "way", "still"),
    [("roberta", {"lora": LORA}, "embeddings"), ("gpt2", {"freeze": 1}, "transformer.h.0."), ("bert", {"head_only": True}, "bert.")],
    ids=["lora", "freeze", "head"],
)  # fmt: skip
def test_all_heads_are_trained_where_the_backbone_is_not(architecture, way, still, data, prepare, tmp_path):
    bases = prepare("classifier", architecture)
    model, _ = trained(data, bases, tmp_path / "checkpoints", learning_rate=5e-3, **way)
    joint.write(model, bases, tmp_path / "joint")
    for task, base in bases.items():
        before, after = loading.read_state(base), loading.read_state(tmp_path / "joint" / task)
        assert before.keys() == after.keys()
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        heads = task_folders.head_names(loading.load_model(base)[0])
        assert heads <= moved and not [name for name in moved if still in name]
        assert (moved == heads) == ("head_only" in way)


def test_tasks_count_the_same_in_what_stops_a_training():
    rows = [{"task": 1}, {"task": 0}, {"task": 1}, {"task": 1}]
    found = type("Found", (), {"predictions": (np.array([1.0, 5.0, 2.0, 3.0], np.float32), np.array([1, 0, 1, 0]))})
    assert trainer.measures(rows)(found) == {"nll": 3.5, "accuracy": round((2 / 3 + 0) / 2, 6)}
    assert trainer.measures([{}] * 4)(found) == {"nll": 2.75, "accuracy": 0.5}


def test_bases_that_differ_in_more_than_their_heads_are_refused(prepare, tmp_path):
    bases = dict(prepare("classifier", "bert"))
    other, tokenizer = loading.load_model(bases["mood"])
    with torch.no_grad():
        other.bert.embeddings.word_embeddings.weight[3, 1] += 1
    checkpoint_files.save(other, tokenizer, tmp_path / "other", cards.read(bases["mood"]))
    with pytest.raises(
        Failure, match=r"other: bert.embeddings.word_embeddings.weight differs from that of .*kind; one model"
    ):
        joint.load({**bases, "mood": tmp_path / "other"}, "classifier")


def arguments(data, bases, folder, **hyper):
    """Return the script's arguments."""
    models = next(iter(bases.values())).parent
    return [
        "--models", models, "--bases", json.dumps({task: base.name for task, base in bases.items()}), "--data", data,
        "--parts", json.dumps({task: {"union": [{}]} for task in bases}), "--hyper", json.dumps({**HYPER, **hyper}),
        "--checkpoints", folder / "checkpoints", "--output", folder / "joint",
    ]  # fmt: skip


def weights(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.glob("*/*.safetensors"))}


@pytest.fixture(scope="module")
def made(data, prepare, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    run_script("train_tasks", *arguments(data, prepare("classifier", "gpt2"), folder))
    assert not (folder / "checkpoints").exists()
    return folder / "joint"


def test_the_script_writes_a_folder_for_each_task_which_is_predicted_as_any_model(made, data, prepare, tmp_path):
    assert {f.name for f in made.iterdir()} == set(CLASSES)
    one, two = ((made / task / "model-00001-of-00002.safetensors") for task in CLASSES)
    assert one.samefile(two) and not (made / "kind/model-00002-of-00002.safetensors").samefile(
        made / "mood/model-00002-of-00002.safetensors"
    )
    for task, base in prepare("classifier", "gpt2").items():
        card = cards.read(made / task)
        assert (card.task, card.kind, card.parents) == (task, "fine_tuned", {"base": checkpoint_files.digest(base)})
        assert (
            card.reviews == 120 + 96
            and card.part == {"union": [{}]}
            and card.model["prompt"]["template"].startswith(task)
        )
        out = ["--output", tmp_path / f"{task}.parquet", "--cost", tmp_path / f"{task}.json"]
        run_script("predict", "--model", made / task, "--data", data, "--task", task, *out)
        table = pl.read_parquet(tmp_path / f"{task}.parquet")
        model = AutoModelForSequenceClassification.from_pretrained(made / task).eval()
        _, tokenizer = loading.load_model(made / task)
        texts = labelled.labelled(data, ("valid", "test"), task)["review"].to_list()[:5]
        with torch.inference_mode():
            logits = [model(**tokenizer(t, truncation=True, return_tensors="pt")).logits[0] for t in texts]
        expected = torch.stack(logits).log_softmax(-1)
        np.testing.assert_allclose(table.select(pl.col("^logp_.*$"))[:5].to_numpy(), expected, atol=1e-4)


def test_a_renamed_training_is_taken_over_and_its_weights_linked(made, data, prepare, tmp_path):
    shutil.copytree(made, tmp_path / "old")
    given, same = arguments(data, prepare("classifier", "gpt2"), tmp_path), ["--same", tmp_path / "old"]
    run_script("train_tasks", *given, *same, "--log", tmp_path / "log")
    assert "copied the finished training of old" in (tmp_path / "log").read_text()
    assert weights(tmp_path / "joint") == weights(made)
    file = "mood/model-00001-of-00002.safetensors"
    assert (tmp_path / "joint" / file).samefile(tmp_path / "old" / file)
    shutil.rmtree(tmp_path / "joint")
    other = arguments(data, prepare("classifier", "gpt2"), tmp_path, steps=1)
    run_script("train_tasks", *other, *same, "--log", tmp_path / "log2")
    assert "copied the finished" not in (tmp_path / "log2").read_text()


def test_a_killed_training_goes_on_and_ends_with_the_same_bytes(data, prepare, tmp_path):
    hyper = {"epochs": 6.0, "early_stopping": 5}
    bases = prepare("classifier", "gpt2")
    whole, cut = (arguments(data, bases, tmp_path / name, **hyper) for name in ("whole", "cut"))
    run_script("train_tasks", *whole)
    command = [
        sys.executable,
        SCRIPTS / "train_tasks.py",
        *cut,
        "--checkpoint-seconds",
        "0.1",
        "--log",
        tmp_path / "log",
    ]
    process = subprocess.Popen(list(map(str, command)))
    deadline = time.monotonic() + 120
    epoch = 27  # steps, of 216 reviews by 8: it resumes within a later one, which has another order
    while not any(
        (step := int(f.parent.name.split("-")[1])) > epoch and step % epoch
        for f in tmp_path.glob("cut/checkpoints/*/checkpoint-*/whole")
    ):
        assert process.poll() is None, (tmp_path / "log").read_text()[-2000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() != 0 and not (tmp_path / "cut/joint").exists()
    run_script("train_tasks", *cut, "--log", tmp_path / "log2")
    assert "resuming from" in (tmp_path / "log2").read_text()
    assert weights(tmp_path / "cut/joint") == weights(tmp_path / "whole/joint") != {}
    one, two = (read_json(tmp_path / name / "joint/mood/model.json") for name in ("whole", "cut"))
    assert one["validation"] == two["validation"] and len(one["validation"]) == 6
    assert not (tmp_path / "cut/checkpoints").exists()


def test_two_processes_end_where_one_would(data, prepare, tmp_path):
    bases = {}
    for task, base in prepare("classifier", "gpt2").items():
        bases[task] = shutil.copytree(base, tmp_path / "models" / task)
        config = read_json(bases[task] / "config.json")  # dropout draws other numbers in each process
        still = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
        (bases[task] / "config.json").write_text(json.dumps({**config, **still}))
    ends = {}
    for number in (1, 2):
        given = arguments(data, bases, tmp_path / str(number), steps=12)
        run_script("train_tasks", *given, "--gpus", number)
        assert read_json(tmp_path / f"{number}/joint/mood/model.json")["processes"] == number
        ends[number] = {task: loading.read_state(tmp_path / f"{number}/joint" / task) for task in CLASSES}
    for task, base in bases.items():
        start = loading.read_state(base)
        moved = max(float((ends[1][task][n] - t).abs().max()) for n, t in start.items())
        apart = max(float((ends[1][task][n] - ends[2][task][n]).abs().max()) for n in start)
        assert apart < moved / 100, (task, apart, moved)


def test_labels_in_another_order_are_refused(data, prepare, tmp_path):
    for task, base in prepare("classifier", "gpt2").items():
        shutil.copytree(base, tmp_path / "models" / task)
    config = read_json(tmp_path / "models/mood/config.json")
    config["id2label"] = {"0": "good", "1": "bad"}
    (tmp_path / "models/mood/config.json").write_text(json.dumps(config))
    bases = {task: tmp_path / "models" / task for task in CLASSES}
    printed = run_script("train_tasks", *arguments(data, bases, tmp_path), ok=False)
    assert "mood/config.json: id2label has the same labels in another order" in printed
