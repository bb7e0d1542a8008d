"""Run the workflow with a text-to-text base and experts, one of them a published fine-tune, and a causal reference."""

import json
import shutil

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

import opened_files
from conftest import Project, fresh
from mllm.models import cards, checkpoint_files
from mllm.models.scratch import train_tokenizer
from mllm.reporting import model_card
from tiny_models import tiny_bert

EXPERIMENT = """
name: families
seed: 5
data: {source: synthetic, rows: 400, conditions: 2}
split: {mode: official-clean, valid: 0.2}
tasks: [{name: sentiment, label: sentiment}]
models:
  - {name: t5, family: text2text, source: scratch, architecture: t5, width: 32, layers: 1, heads: 2, vocabulary: 400, max_length: 96}
  - {name: theirs, family: text2text, source: local, path: theirs, max_length: 96}
  - {name: classifier, source: local, path: classifier, max_length: 16}
  - {name: small-lm, family: causal, source: scratch, architecture: llama, width: 32, layers: 1, heads: 2, vocabulary: 400,
     max_length: 96, pretrain: {steps: 3}}
base: t5
experts:
  - {name: shard, parts: 2, steps: 6, batch_size: 8, learning_rate: 5.0e-3}
  - {name: adapted, steps: 6, batch_size: 8, learning_rate: 5.0e-3, lora: {rank: 4}, class_weights: balanced, early_stopping: 1}
  - {name: bought, model: theirs}
merges:
  - {method: linear, members: [shard-*, bought]}
  - {method: ties, members: [shard-*, adapted], density: 0.5}
references:
  - {name: lm-on-all, model: small-lm, train: all, steps: 6, batch_size: 8}
  - {name: t5-zero-shot, model: t5, train: none}
  - {name: probed, model: classifier, train: probe}
  - {name: as-it-is, model: classifier, train: none, labels: {negative: LABEL_1, neutral: LABEL_2, positive: LABEL_0}}
blends:
  - {name: both, method: soft_vote, members: [as-it-is, shard-0]}
compare: {metric: macro_f1, margin: 0.01}
keep: winners
"""
RUN = ("--profile", "profiles/local", "--configfile", "config/families.yaml")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Project:
    project = fresh(tmp_path_factory.mktemp("families") / "project")
    (project.folder / "config/families.yaml").write_text(EXPERIMENT)
    project.snakemake("results/families/models/base-sentiment", *RUN)
    # Somebody else fine-tuned the same base, and nothing in the folder says so.
    theirs = project.folder / "theirs"
    shutil.copytree(project.folder / "results/families/models/base-sentiment", theirs)
    (theirs / "model.json").unlink()
    torch.manual_seed(1)
    state = load_file(theirs / "model.safetensors")
    save_file(
        {n: v + 0.01 * torch.randn_like(v) for n, v in state.items()}, theirs / "model.safetensors", {"format": "pt"}
    )
    # A classifier of another architecture, with other names in another order.
    classifier = tiny_bert()
    classifier.config.id2label = {i: f"LABEL_{i}" for i in range(3)}
    classifier.save_pretrained(project.folder / "classifier")
    words = train_tokenizer(["some words to make a vocabulary of"] * 3, 300, 16)
    words.save_pretrained(project.folder / "classifier")
    project.trace = project.folder.with_suffix(".trace")
    project.snakemake(*RUN, trace=project.trace)
    return project


def test_a_classifier_of_another_architecture_is_scored_and_blended_as_it_is(finished):
    results = finished.folder / "results/families"
    taken, theirs = (
        load_file(f / "model.safetensors") for f in (results / "models/as-it-is", finished.folder / "classifier")
    )
    assert torch.equal(taken["classifier.weight"], theirs["classifier.weight"][[1, 2, 0]])
    assert all(torch.equal(taken[n], theirs[n]) for n in theirs if not n.startswith("classifier"))
    assert json.loads((results / "models/as-it-is/model.json").read_text())["source"]["name"] == "classifier"
    board = pl.read_csv(results / "leaderboard.csv", infer_schema_length=None)
    assert dict(board.select("candidate", "method").rows())["as-it-is"] == "published"
    p, q, both = (
        np.exp(pl.read_parquet(results / f"predictions/{n}.parquet").sort("split", "review_id").select("^logp_.$").to_numpy())
        for n in ("as-it-is", "shard-0", "both")
    )  # fmt: skip
    np.testing.assert_allclose(both, (p + q) / 2, atol=1e-5)


def test_no_job_opens_what_its_rule_does_not_declare(finished):
    seen = opened_files.undeclared(finished, "config/families.yaml", "results/families")
    assert {rule: names for rule, names in seen.items() if names} == {}
    assert {"train_expert", "take_expert", "merge", "predict", "tokenise", "fit_probe", "score"} <= set(seen), sorted(
        seen
    )


def test_they_end_in_one_leaderboard(finished):
    results = finished.folder / "results/families"
    board = pl.read_csv(results / "leaderboard.csv", infer_schema_length=None)
    kinds = dict(board.group_by("kind").len().rows())
    assert kinds == {"base": 1, "expert": 4, "merge": 2, "reference": 4, "blend": 1}
    assert dict(board.select("candidate", "method").rows())["bought"] == "published"
    # All of them are asked, and have scores without each prior; the cost of a published model is unknown.
    asked = board.filter(
        ~pl.col("candidate").is_in(["as-it-is", "both", "probed"])
    )  # a classifier, its blend and a probe have no prompt
    assert asked["test_contextual_macro_f1"].null_count() == asked["test_batch_macro_f1"].null_count() == 0
    seconds = dict(board.select("candidate", "train_seconds").rows())
    assert seconds["bought"] is None and seconds["shard-0"] > 0 and seconds["base-sentiment"] == 0
    unknown = [c for c, s in seconds.items() if s is None]
    assert sorted(c.partition("-")[0] for c in unknown) == ["as", "both", "bought", "linear"]
    assert (results / "verdict.md").exists()
    assert not finished.planned(*RUN)


def test_what_was_trained_says_how_and_is_a_plain_checkpoint(finished):
    models = finished.folder / "results/families/models"
    base = load_file(models / "base-sentiment/model.safetensors")
    for name in ("shard-0", "adapted", "bought"):
        card, state = (
            json.loads((models / name / "model.json").read_text()),
            load_file(models / name / "model.safetensors"),
        )
        assert card["family"] == "text2text" and card["model"]["prompt"]["score"] == "likelihood"
        assert card["parents"]["base"] == checkpoint_files.digest(models / "base-sentiment")
        assert state.keys() == base.keys() and any(not torch.equal(state[n], base[n]) for n in base)
    card = json.loads((models / "adapted/model.json").read_text())
    assert card["hyper_parameters"]["lora"] == {"rank": 4, "alpha": 32.0, "dropout": 0.0}
    assert {"validation", "loss", "seconds", "peak_memory_bytes", "versions", "data", "batch_parts"} <= set(card)
    assert len(card["data"]) == 64
    lm = json.loads((models / "lm-on-all/model.json").read_text())
    assert lm["family"] == "causal" and lm["validation"][-1]["accuracy"] <= 1


def test_a_published_expert_is_what_its_files_say(finished):
    taken = load_file(finished.folder / "results/families/models/bought/model.safetensors")
    theirs = load_file(finished.folder / "theirs/model.safetensors")
    assert all(torch.equal(taken[n], theirs[n]) for n in taken)


def test_a_merge_is_asked_like_its_members_and_exported(finished):
    results = finished.folder / "results/families"
    exported = sorted((results / "export").glob("[a-z]*"))
    assert [f.name.partition("-")[0] for f in exported] == ["linear", "ties"]
    for folder in exported:
        assert "Loaded back from this folder" in (folder / "README.md").read_text()
        assert json.loads((folder / "model.json").read_text())["family"] == "text2text"
    table = pl.read_parquet(next((results / "predictions").glob("linear-*.parquet")))
    logp = table.select("logp_0", "logp_1", "logp_2").to_numpy()
    np.testing.assert_allclose(np.exp(logp).sum(1), 1, atol=1e-5)


def test_a_published_model_of_another_kind_is_refused(finished, tmp_path):
    """One line says so before any merge with it."""
    project = finished.copy(tmp_path / "other")
    config = json.loads((project.folder / "theirs/config.json").read_text())
    for change, said in (
        (
            {"num_heads": 1, "d_kv": 32},
            "relative_attention_bias.weight: found shape (32, 2), expected (32, 1) by its config.json",
        ),
        ({"layer_norm_epsilon": 0.5}, "layer_norm_epsilon is 0.5, in"),
    ):
        (project.folder / "theirs/config.json").write_text(json.dumps({**config, **change}))
        out = project.snakemake("results/families/models/bought", "--forcerun", "take_expert", *RUN, ok=False)
        log = (project.folder / "results/families/logs/take_expert/bought.log").read_text()
        assert said in log.splitlines()[-1] and said in out, out[-3000:]


def test_a_published_member_brings_its_licence(finished):
    """It may have none, or another one than the base: a merge of it is not simply under the base's licence."""
    exported = finished.folder / "results/families/export"
    bodies = {f.name.partition("-")[0]: (f / "README.md").read_text() for f in exported.glob("[a-z]*")}
    assert "The member bought, the checkpoint 'theirs', names no licence" in bodies["linear"]
    assert "names no licence" not in bodies["ties"]
    asked = {"family": "text2text", "model": {}, "task": "t"}
    source = {"source": "local", "name": "theirs"}
    members = {
        "own": cards.Base(**asked, seed=1),
        "bought": cards.Published(**asked, source=source, license="cc-by-nc-4.0", parents={}),
    }
    assert model_card._licences_of_members(members) == [
        "The member bought, the checkpoint 'theirs', is under `cc-by-nc-4.0`."
    ]
