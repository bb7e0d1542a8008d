"""Run mixtures of experts through the complete workflow: mix, score and export a small local LLaMA."""

import json
import re
import subprocess
import sys

import polars as pl
import pytest
import yaml
from transformers import LlamaConfig, LlamaForCausalLM, set_seed

import tiny_models
from conftest import ROOT, Project
from mllm.experiment import yaml_files
from mllm.models import checkpoint_files, loading
from mllm.models.scratch import train_tokenizer

CARD = "---\nlicense: apache-2.0\nlanguage: en\n---\n# A small model\n"


@pytest.fixture
def llama(project: Project) -> Project:
    """Prepare the demonstration's data with a local LLaMA, two experts, two mixtures, and an average by depth."""
    words = ["it helped my pain a lot", "no effect on my acne", "side effects and sleep"] * 3
    set_seed(1)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
                    intermediate_size=48, max_position_embeddings=64)
    )  # fmt: skip
    tokenizer = train_tokenizer(words, 300, 64)
    folder = project.folder / "models/tiny-llama"
    checkpoint_files.save(model, tokenizer, folder, tiny_models.CARD)
    (folder / "README.md").write_text(CARD)
    raw = yaml_files.read_yaml(ROOT / "config/demo.yaml")
    expert = {"steps": 4, "batch_size": 8, "learning_rate": 1e-3}
    raw |= {
        "name": "mixtures", "base": "llama", "keep": "winners",
        "data": {"source": "synthetic", "rows": 600, "conditions": 3},
        "models": [{"name": "llama", "source": "local", "path": "models/tiny-llama", "max_length": 48}],
        "experts": [{"name": c.lower(), "where": {"condition": [c]}, **expert} for c in ("Pain", "Acne")],
        "merges": [
            {"method": "moe", "members": ["pain", "acne"], "gate_mode": ["hidden", "random"], "prompts": 4},
            {"method": "linear", "members": ["pain", "acne"],
             "weight": {"pain": {"layers": [0.2, 0.8], "rest": 0.5}, "acne": 0.5}},
        ],
        "blends": [], "references": [],
    }  # fmt: skip
    (project.folder / "config/mixtures.yaml").write_text(yaml.safe_dump(raw))
    return project


def test_mixtures_are_made_scored_and_exported(llama):
    llama.snakemake("--cores", "2", "--configfile", "config/mixtures.yaml")
    results = llama.folder / "results/mixtures"
    board = pl.read_parquet(results / "leaderboard.parquet")
    size = dict(board.select("method", "n_parameters").rows())
    assert board["method"].to_list().count("moe") == 2
    assert size["linear"] < size["moe"] < 2 * size["linear"]
    winners = board.filter(pl.col("winner"))
    assert set(winners["method"]) == {"moe", "linear"}
    for row in winners.iter_rows(named=True):
        folder = results / "export" / row["candidate"]
        model, _ = loading.load_model(folder)
        assert (type(model).__name__ == "MixtralForSequenceClassification") == (row["method"] == "moe")
        heading = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
        assert heading["license"] == "apache-2.0"
        said = (folder / "README.md").read_text()
        assert "(expert) | **" in said and "Yes: not worse by more than the margin of 0.01." in said
        # Prompts are reviews, which must not be published.
        text = (folder / "README.md").read_text()
        train = pl.read_parquet(results / "data/train.parquet")
        assert not any(review in text for review in train["review"].to_list())
        code = re.search(r"```python\n(.*?)```", text, re.S)[1]  # as the card tells its readers
        said = subprocess.run(
            [sys.executable, "-c", code], cwd=folder.parent, capture_output=True, text=True, check=True
        ).stdout
        assert any(label in said for label in ("negative", "neutral", "positive")) and "score" in said
    hidden = next(p for p in (results / "merges").glob("moe-*") if "random" not in p.name)
    prompts = yaml.safe_load((hidden / "mergekit.yaml").read_text())["experts"]
    assert [len(e["positive_prompts"]) for e in prompts] == [4, 4]
    own = train.filter(pl.col("condition") == "Acne")["review"].to_list()
    assert all(p in own for p in prompts[0]["positive_prompts"])  # members in sorted order: acne, pain
    card = json.loads((hidden / "merge.json").read_text())
    assert set(card["parents"]) == {"base-sentiment", "acne", "pain"}
