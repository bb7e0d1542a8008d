"""Compare one model's predictions for several tasks with plain transformers and with each task predicted alone."""

import argparse
import json

import numpy as np
import polars as pl
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import merge
import merge_tasks
import predict
import predict_tasks
from mllm.data import labelled
from mllm.prediction import heads, run_model
from task_models import CLASSES, PARTS, make_task_models, parts_of, task_recipe
from tiny_models import tiny_bert, tiny_gpt2, tiny_llama, tiny_t5, tiny_t5_classifier

TEXTS = [f"{i} {'of the words ' * (i % 5)}of some" for i in range(90)]
PROMPT = {"template": "{review} Which {task}?", "words": {}, "score": "likelihood", "examples": 0, "chat": False}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Make reviews; each task labels different ones."""
    folder = tmp_path_factory.mktemp("data")
    numbers = range(len(TEXTS))
    frame = pl.DataFrame({"review_id": numbers, "group": numbers, "review": TEXTS})
    for split, part in {"train": frame[:20], "valid": frame[20:50], "test": frame[50:]}.items():
        part.write_parquet(folder / f"{split}.parquet")
    for (task, names), step in zip(CLASSES.items(), (2, 3), strict=True):
        rows = frame.filter(pl.col("review_id") % step > 0)
        labels = rows.select("review_id", label=pl.col("review_id") % len(names))
        labelled.write_task(folder, task, {"names": names, "label": "sentiment"}, labels)
    return folder


def merged(models, output, values, parts=None, gpus=0):
    recipe = task_recipe(values)
    parts = parts or parts_of(recipe)
    merge_tasks.main(argparse.Namespace(recipe=recipe, models=models, tasks=parts, gpus=gpus, kept=None, output=output))
    return output / "model"


def settings(data, folder, **more):
    return {"data": data, "first_layers": 0, "threads": 1, "gpus": 1, "dtype": "float32", "seed": 3, "shards": folder / "shards",
            "tokens": folder / "tokens", "checkpoint_seconds": 9, **more}  # fmt: skip


def predicted_together(model, data, output, tasks=tuple(CLASSES)):
    asked = {task: {"names": None, "output": str(output / f"together.{task}")} for task in tasks}
    predict_tasks.main(argparse.Namespace(**settings(data, output, model=model, tasks=asked)))
    return {task: pl.read_parquet(output / f"together.{task}.parquet") for task in tasks}


def predicted_alone(model, task, data, output):
    to = {"output": output / f"alone.{task}.parquet", "cost": output / f"alone.{task}.cost.json"}
    predict.main(argparse.Namespace(**settings(data, output, model=model, task=task, names=None, prompt=None, **to)))
    return pl.read_parquet(output / f"alone.{task}.parquet")


def logp(table):
    return table.select(pl.selectors.starts_with("logp_")).to_numpy()


@pytest.mark.parametrize("architecture", [tiny_gpt2, tiny_bert, tiny_t5_classifier])
def test_one_pass_answers_as_each_tasks_folder_in_plain_transformers(architecture, data, tmp_path, monkeypatch):
    models = make_task_models(architecture, tmp_path / "models")
    folder = merged(models, tmp_path / "merge", {"method": "task_arithmetic", "lambda": 0.7})
    passes, batches = [], []
    call = heads._Once.__call__
    monkeypatch.setattr(
        heads._Once, "__call__", lambda self, *a, **k: (passes.append(self._found is None), call(self, *a, **k))[1]
    )
    split = run_model._batches
    monkeypatch.setattr(run_model, "_batches", lambda *a: (batches.append(list(split(*a))), batches[-1])[1])
    found = predicted_together(folder, data, tmp_path)
    of_flops = len(CLASSES)  # one review, for counting operations
    assert sum(passes) == len(batches[0]) + of_flops and len(passes) == 2 * sum(passes)
    for task, names in CLASSES.items():
        rows = labelled.labelled(data, ("valid", "test"), task)
        assert found[task].select("review_id", "split", "label").equals(rows.select("review_id", "split", "label"))
        plain, tokenizer = (
            kind.from_pretrained(folder / task) for kind in (AutoModelForSequenceClassification, AutoTokenizer)
        )
        with torch.inference_mode():
            expected = [
                plain.eval()(**tokenizer(text, return_tensors="pt", truncation=True)).logits.log_softmax(-1)[0].numpy()
                for text in rows["review"]
            ]
        assert logp(found[task]).shape[1] == len(names)
        np.testing.assert_allclose(logp(found[task]), expected, atol=2e-5)
        np.testing.assert_allclose(logp(predicted_alone(folder / task, task, data, tmp_path)), logp(found[task]), atol=2e-5)  # fmt: skip
        cost = json.loads((tmp_path / f"together.{task}.cost.json").read_text())
        assert cost["n_parameters"] == plain.num_parameters() and cost["reviews"] == rows.height


def test_one_task_alone_is_the_merge_within_it(data, tmp_path):
    models = make_task_models(tiny_bert, tmp_path / "models")
    values = {"method": "ties", "members": ["b", "c"], "density": 0.6}
    folder = merged(models, tmp_path / "merge", values, {"mood": PARTS["mood"]})
    within = {"recipe": task_recipe(values), "models": models, "base": "base-mood", "gpus": 0, "kept": None}
    merge.main(argparse.Namespace(**within, output=tmp_path / "within"))
    found = predicted_together(folder, data, tmp_path, ("mood",))["mood"]
    assert found.equals(predicted_alone(tmp_path / "within/model", "mood", data, tmp_path))


@pytest.mark.parametrize("architecture", [tiny_llama, tiny_t5])
def test_a_model_that_is_asked_answers_as_in_each_task_alone(architecture, data, tmp_path):
    family = "causal" if architecture is tiny_llama else "text2text"
    models = make_task_models(lambda: longer(architecture()), tmp_path / "models", family, prompt=PROMPT)
    folder = merged(models, tmp_path / "merge", {"method": "linear"})
    found = predicted_together(folder, data, tmp_path)
    for task in CLASSES:
        alone = predicted_alone(folder / task, task, data, tmp_path)
        assert found[task].select("review_id", "split", "label").equals(alone.select("review_id", "split", "label"))
        np.testing.assert_allclose(logp(found[task]), logp(alone), atol=1e-5)
        assert {"contextual_0", "batch_0"} <= set(alone.columns)
    assert not (tmp_path / "shards").exists()


def longer(model):
    """Return the model with enough positions for a prompt."""
    if hasattr(model.config, "max_position_embeddings"):
        model.config.max_position_embeddings = 64
        model = type(model)(model.config)
    return model


def test_finished_predictions_of_the_same_model_are_taken_over(data, tmp_path, caplog):
    models = make_task_models(tiny_bert, tmp_path / "models")
    folder = merged(models, tmp_path / "merge", {"method": "linear"})
    predicted_together(folder, data, tmp_path)
    again = {task: {"names": None, "output": str(tmp_path / f"again.{task}")} for task in CLASSES}
    predict_tasks.main(argparse.Namespace(**settings(data, tmp_path, model=folder, tasks=again)))
    for task in CLASSES:
        assert (tmp_path / f"again.{task}.parquet").read_bytes() == (tmp_path / f"together.{task}.parquet").read_bytes()


def test_an_expert_is_asked_by_another_tasks_prompt(data, tmp_path):
    """The cross matrix asks the other task's question of a model's weights."""
    models = make_task_models(lambda: longer(tiny_llama()), tmp_path / "models", "causal", prompt=PROMPT)
    other = {**PROMPT, "template": "{review} So how good?"}
    to = {"output": tmp_path / "a.mood.parquet", "cost": tmp_path / "a.mood.cost.json"}
    more = {"model": models / "a", "task": "mood", "names": None, **to}
    predict.main(argparse.Namespace(**settings(data, tmp_path, **more, prompt=PROMPT)))
    own = logp(pl.read_parquet(to["output"]))
    assert own.shape[1] == len(CLASSES["mood"])
    predict.main(argparse.Namespace(**settings(data, tmp_path, **more, prompt=other)))
    assert not np.allclose(own, logp(pl.read_parquet(to["output"])), atol=1e-4)
