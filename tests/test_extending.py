"""Run the examples of docs/extending, taken from the pages themselves."""

import json
import re
import subprocess
import sys

import polars as pl
import pytest
import torch
import yaml
from transformers import BertConfig, BertForMaskedLM

from conftest import ROOT, Project, fresh
from mllm.models.scratch import train_tokenizer

RUFF = (sys.executable, "-m", "ruff")
JUDGED = {"score": 1, "leaderboard": 1, "compare": 1, "write_report": 1}
DEMO = ("--profile", "profiles/local", "--configfile", "config/demo.yaml")


def extend(project: Project, page: str) -> dict:
    """Follow a page: apply its patch, write its new files, update generated files; return its YAML."""
    text = (ROOT / f"docs/extending/{page}.md").read_text()
    patches = re.findall(r"```diff\n(.*?)```", text, re.S)
    new = re.findall(r"^`(\S+)`, new:\n\n```python\n(.*?)```", text, re.S | re.M)
    assert patches or new
    for patch in patches:
        # Also inside another repository: the patch is relative to the project's root.
        done = subprocess.run(["patch", "--strip=1", "--fuzz=0"], cwd=project.folder, input=patch, text=True, capture_output=True)  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    for path, content in new:
        (project.folder / path).write_text(content)
    make(project, "config/generate_schema.py")
    checked = subprocess.run([*RUFF, "check", "--no-cache", "."], cwd=project.folder, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
    subprocess.run([*RUFF, "format", "--no-cache", "--check", "."], cwd=project.folder, check=True, capture_output=True)
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.S)
    return yaml.safe_load(blocks[0]) if blocks else {}


def make(project: Project, script: str) -> None:
    subprocess.run([sys.executable, script], cwd=project.folder, check=True)


@pytest.fixture
def changed(demo, tmp_path) -> Project:
    return demo.copy(tmp_path / "changed")


def test_a_metric(changed):
    extend(changed, "metric")
    changed.edit("config/demo.yaml", "metric: macro_f1", "metric: worst_recall")
    assert changed.planned(*DEMO) == JUDGED  # no model
    changed.snakemake(*DEMO)
    results = changed.folder / "results/demo"
    board = pl.read_parquet(results / "leaderboard.parquet")
    runs = pl.read_parquet(results / "runs.parquet").group_by("candidate").agg("run")
    recalls = {
        c: [json.loads((results / f"scores/{run}.json").read_text())["recall"]["test"] for run in names]
        for c, names in runs.iter_rows()
    }
    for candidate, value, low, high in board.select(
        "candidate", "test_worst_recall", "test_worst_recall_low", "test_worst_recall_high"
    ).rows():
        worst = [
            min(r["value"] for r in of_run.values()) for of_run in recalls[candidate]
        ]  # of each run; the table has the mean
        assert value == pytest.approx(sum(worst) / len(worst), abs=1e-6) and low <= value <= high
    assert "recall of the worst class" in (results / "verdict.md").read_text()
    assert "worst_recall" in (changed.folder / "docs/experiment.md").read_text()


def test_a_method(changed):
    entry = extend(changed, "method")["merges"][0]
    demo = yaml.safe_load((changed.folder / "config/demo.yaml").read_text())
    demo["merges"] = [entry]
    (changed.folder / "config/demo.yaml").write_text(yaml.safe_dump(demo, sort_keys=False))
    listed = changed.snakemake("grid", "--quiet", "all", *DEMO)
    names = sorted(set(re.findall(r"median-\S+", listed)))
    assert len(names) == 2
    models = [f"results/demo/merges/{name}/model" for name in names]
    changed.snakemake(*models, *DEMO, "--notemp")
    from safetensors.torch import load_file

    folder = changed.folder / "results/demo"
    base, *members = (
        load_file(folder / f"models/{m}/model.safetensors") for m in ("base-sentiment", *entry["members"])
    )
    for model in models:
        recipe = yaml.safe_load((changed.folder / model).parent.joinpath("mergekit.yaml").read_text())
        merged = load_file(changed.folder / model / "model.safetensors")
        scale = recipe.get("parameters", {}).get("scale", 1.0)
        for name, tensor in merged.items():
            middle = torch.stack([m[name].double() - base[name].double() for m in members]).sort(dim=0).values[1]
            torch.testing.assert_close(tensor.double(), base[name] + scale * middle, atol=1e-6, rtol=1e-5)
        assert (
            "not for the mergekit-yaml command" in (changed.folder / model).parent.joinpath("mergekit.yaml").read_text()
        )


def test_a_data_source(tmp_path):
    project = fresh(tmp_path / "project")
    experiment = extend(project, "data-source")
    demo = yaml.safe_load((project.folder / "config/demo.yaml").read_text())
    demo |= {
        "name": "lines",
        **experiment,
        "experts": demo["experts"][:1] and [{"name": "shard", "parts": 2, "steps": 1}],
    }
    demo |= {"merges": [{"method": "linear", "members": ["shard-*"]}], "blends": []}
    (project.folder / "config/lines.yaml").write_text(yaml.safe_dump(demo, sort_keys=False))
    reviews = [
        {"text": f"Review {i} of a remedy, in words enough.", "stars": 1 + i % 10, "disease": "Pain"}
        for i in range(200)
    ]
    lines = [json.dumps(r) for r in reviews]
    file = project.folder / "reviews.jsonl"
    file.write_text("\n".join(lines) + "\n")
    run = ("--profile", "profiles/local", "--configfile", "config/lines.yaml")
    project.snakemake("results/lines/data/split.json", *run)
    parts = [pl.read_parquet(project.folder / f"results/lines/data/{p}.parquet") for p in ("train", "valid", "test")]
    assert sum(p.height for p in parts) == 200 and all(set(p["condition"]) == {"Pain"} for p in parts)
    file.write_text("\n".join([*lines[:4], lines[4][:30]]))
    said = project.snakemake("results/lines/data/split.json", *run, ok=False)
    for words in ("reviews.jsonl, line 5: found", "expected a JSON object with the keys text, stars, disease"):
        assert words in said, said


def test_a_family(tmp_path):
    project = fresh(tmp_path / "project")
    experiment = extend(project, "family")
    texts = ["It was good", "It was bad", "It was fair", "I slept well and had no pain with this drug"] * 40
    tokenizer = train_tokenizer(texts, 300, 64)
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    tokenizer.add_tokens(["good", "bad", "fair"])  # one token each
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    BertForMaskedLM(config).save_pretrained(project.folder / "my-bert")
    tokenizer.save_pretrained(project.folder / "my-bert")
    demo = yaml.safe_load((project.folder / "config/demo.yaml").read_text())
    demo |= {"name": "masks", **experiment, "blends": [], "data": {"source": "synthetic", "rows": 400, "conditions": 2}}
    (project.folder / "config/masks.yaml").write_text(yaml.safe_dump(demo, sort_keys=False))
    project.snakemake("--profile", "profiles/local", "--configfile", "config/masks.yaml")
    board = pl.read_parquet(project.folder / "results/masks/leaderboard.parquet")
    assert dict(board.group_by("kind").len().rows()) == {"base": 1, "expert": 2, "merge": 1, "reference": 1}
    # The model asked zero-shot is the downloaded base.
    by_name = {row["candidate"]: row for row in board.to_dicts()}
    assert by_name["base-sentiment"]["test_nll"] == pytest.approx(by_name["zero-shot"]["test_nll"], abs=1e-5)
    assert by_name["shard-0"]["valid_nll"] < by_name["base-sentiment"]["valid_nll"]
