"""Run one model for several tasks: a classifier up to its export, prompted models up to their predictions."""

import json
import subprocess
from collections import Counter

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from huggingface_hub import HfApi
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from conftest import ROOT, fresh
from mllm.data import labelled
from mllm.models import cards

TASKS = [
    {"name": "rating", "column": "rating", "classes": {"low": [1, 2, 3, 4, 5], "high": [6, 7, 8, 9, 10]}},
    {"name": "mood", "label": "sentiment"},
    {"name": "topic", "label": "condition", "top": 3},
]
TRAINED = {"steps": 20, "learning_rate": 0.003}
MODEL = {"name": "tiny", "source": "scratch", "width": 32, "layers": 1}
CLASSIFIER = {
    "name": "one",
    "data": {"source": "synthetic", "rows": 400},
    "split": {"valid": 0.3},
    "tasks": TASKS,
    "models": [{**MODEL, "architecture": "bert", "max_length": 32}],
    "base": "tiny",
    "experts": [
        {"name": "stars", "task": "rating", **TRAINED},
        {"name": "m", "task": "mood", "parts": 2, **TRAINED},
        {"name": "t", "task": "topic", **TRAINED},
    ],
    "merges": [
        {"method": "task_arithmetic", "members": ["*"], "lambda": [0.3, 0.6]},
        {"method": "linear", "members": {"mood": ["m-0"], "topic": ["t"]}, "weight": {"mood": 1, "topic": 2}},
    ],
    "compare": {"metric": "accuracy"},
}  # fmt: skip
ASKED = {
    "name": "asked",
    "data": {"source": "synthetic", "rows": 400},
    "split": {"valid": 0.3},
    "tasks": [TASKS[1], {**TASKS[2], "prompt": {"template": "{review} What is treated? {labels}"}}],
    "models": [],
    "base": "tiny",
    "experts": [{"name": "m", "task": "mood", "steps": 2}, {"name": "t", "task": "topic", "steps": 2, "lora": {"rank": 2}}],
    "merges": [{"method": "ties", "members": ["*"], "density": 0.5}],
}  # fmt: skip


def run(folder, raw, *targets):
    """Run the project with an experiment of several tasks."""
    project = fresh(folder)
    (project.folder / "config/tasks.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    project.snakemake(*targets, "--configfile", "config/tasks.yaml", "--cores", "2")
    return project


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(tmp_path_factory.mktemp("tasks") / "project", CLASSIFIER)


@pytest.fixture(scope="module")
def results(finished):
    return finished.folder / "results/one"


def test_one_merge_is_predicted_in_all_its_tasks(finished, results):
    runs = Counter(p.name.split("-")[0] for p in (results / "merges").iterdir())
    assert runs == {"task_arithmetic": 2, "linear": 1}
    board = pl.read_parquet(results / "leaderboard.parquet")
    merges = board.filter(kind="merge")
    assert Counter(merges["task"]) == {"rating": 2, "mood": 3, "topic": 3}
    for candidate, task in merges.select("candidate", "task").rows():
        table = pl.read_parquet(results / f"predictions/{candidate}.parquet")
        rows = labelled.labelled(results / "data", ("valid", "test"), task)
        assert table.select("review_id", "label").equals(rows.select("review_id", "label"))
    assert not list((results / "merges").glob("*/model"))  # they were deleted once predicted
    assert not finished.planned("--configfile", "config/tasks.yaml")


def test_the_table_over_tasks_has_every_system(results):
    table = pl.read_parquet(results / "tasks.parquet")
    wholes = {p.name for p in (results / "merges").iterdir()}
    assert wholes | {"each task's expert"} <= set(table["system"])
    (chosen,) = table.filter("chosen")["system"]
    assert chosen in wholes and chosen.startswith("task_arithmetic")
    assert chosen in (results / "verdict.md").read_text()


def test_experts_of_different_tasks_are_compared_without_their_heads(results):
    members = pl.read_csv(results / "diagnostics/members.csv")
    across = members.filter(task="mood, rating, topic", measure="cosine", layer="all")
    assert across.height == 6  # pairs of four experts
    layers = set(members.filter(task="mood, rating, topic")["layer"])
    assert "bert.encoder.layer.0" in layers and not {layer for layer in layers if layer.startswith("classifier")}


def test_an_export_loads_in_two_lines_of_transformers(results):
    exported = [p for p in (results / "export").iterdir() if p.is_dir() and not p.name.startswith(".")]
    assert Counter(p.name.split("-")[0] for p in exported) == {"task_arithmetic": 1, "linear": 1}
    (folder,) = (p for p in exported if p.name.startswith("task_arithmetic"))
    card = (folder / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0]
    assert len(code.strip().splitlines()) == 2
    names: dict = {}
    exec(code.replace(f'"{folder.name}"', repr(str(folder))), names)
    assert names["model"].config.id2label[0] == "negative"
    said = (ROOT / "docs/tasks.md").read_text().split("```python\n")[1].split("```")[0]
    exec(said.replace('"FOLDER"', repr(str(folder))).replace('"sentiment"', '"mood"'), names)
    assert names["model"].config.id2label[0] == "negative"
    for task in ("rating", "mood", "topic"):
        assert f"| {task} | `{task}/` |" in card and f"## Scores in task {task}" in card
        rows = labelled.labelled(results / "data", ("test",), task).head(20)
        tokenizer, model = (
            kind.from_pretrained(folder, subfolder=task) for kind in (AutoTokenizer, AutoModelForSequenceClassification)
        )
        with torch.inference_mode():
            logits = model(
                **tokenizer(rows["review"].to_list(), return_tensors="pt", padding=True, truncation=True)
            ).logits
        recorded = rows.join(
            pl.read_parquet(results / f"predictions/{folder.name}.{task}.parquet"),
            on="review_id",
            maintain_order="left",
        )
        expected = recorded.select(pl.selectors.starts_with("logp_")).to_numpy()
        np.testing.assert_allclose(logits.log_softmax(-1).numpy(), expected, atol=1e-4)
    shared = {
        (folder / task / "model-00001-of-00002.safetensors").stat().st_ino for task in ("rating", "mood", "topic")
    }
    assert len(shared) == 1


def test_the_hubs_client_uploads_each_tasks_folder_whole(results):
    """Read the hub client's list of files to commit, made without a network: linked weights are files of one content."""
    folder = next(p for p in (results / "export").iterdir() if p.name.startswith("task_arithmetic"))
    operations = HfApi()._prepare_upload_folder_additions(
        folder_path=folder, path_in_repo="", repo_type="model", ignore_patterns="README.md"
    )  # the hub reads its heading
    listed = {o.path_in_repo: o.upload_info for o in operations}
    assert listed.keys() == {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {"README.md"}
    for task in ("rating", "mood", "topic"):
        index = json.loads((folder / task / "model.safetensors.index.json").read_text())
        assert {f"{task}/{name}" for name in index["weight_map"].values()} < listed.keys()
    shards = [listed[f"{task}/model-00001-of-00002.safetensors"] for task in ("rating", "mood", "topic")]
    assert len({info.sha256 for info in shards}) == 1 and shards[0].size > 10_000  # stored once


@pytest.mark.parametrize(("family", "architecture"), [("text2text", "t5"), ("causal", "llama")])
def test_a_model_that_is_asked_answers_every_tasks_question(family, architecture, tmp_path):
    model = {**MODEL, "architecture": architecture, "family": family, "max_length": 96}
    project = run(tmp_path / "project", {**ASKED, "models": [model]}, "predictions", "merges", "--config", "keep=all")
    results = project.folder / "results/asked"
    (whole,) = (p.name for p in (results / "merges").iterdir())
    made = {p.name.removesuffix(".parquet") for p in (results / "predictions").glob("*.parquet")}
    assert made == {"base-mood", "base-topic", "m", "t", "m.topic", "t.mood", f"{whole}.mood", f"{whole}.topic"}
    folders = {task: results / "merges" / whole / "model" / task for task in ("mood", "topic")}
    prompts = {task: cards.read(folder).model["prompt"]["template"] for task, folder in folders.items()}
    assert "{task}" in prompts["mood"] and prompts["topic"] == "{review} What is treated? {labels}"
    assert len({(folder / "model.safetensors").stat().st_ino for folder in folders.values()}) == 1
    predictions = {name: pl.read_parquet(results / f"predictions/{name}.parquet") for name in made}
    for name, table in predictions.items():
        task = (
            name.rpartition(".")[2]
            if "." in name
            else {"m": "mood", "t": "topic"}.get(name, name.removeprefix("base-"))
        )
        rows = labelled.labelled(results / "data", ("valid", "test"), task)
        assert table.select("review_id", "label").equals(rows.select("review_id", "label")), name
    assert not predictions["t.mood"].equals(predictions["base-mood"])
    usage = subprocess.run(["du", "-sk", results / "merges" / whole / "model"], capture_output=True, text=True).stdout
    alone = (folders["mood"] / "model.safetensors").stat().st_size / 1024
    assert int(usage.split()[0]) < 2 * alone + 300  # the weights are there once
