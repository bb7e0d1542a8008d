"""Copy the project with an experiment of many merges (a BERT of MiniLM's shape, 500 reviews), to compare runs on it."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "workflow/scripts"))
CONFIG = "config/points.yaml"
RESULTS = Path("results/points")
EXPERIMENT: dict[str, Any] = {
    "name": "points",
    "data": {"source": "synthetic", "rows": 1470, "conditions": 3},
    "split": {"mode": "official-clean", "valid": 0.2},
    "tasks": [{"name": "sentiment", "label": "sentiment"}],
    "models": [{"name": "bert", "family": "classifier", "source": "local", "path": "checkpoints/bert", "max_length": 128}],
    "base": "bert",
    "experts": [{"name": "shard", "parts": 3, "steps": 4, "batch_size": 16, "learning_rate": 1.0e-3}],
    "compare": {"metric": "macro_f1", "margin": 0.01},
}  # fmt: skip
SIZES = {"minilm": (30522, 384, 6), "tiny": (600, 32, 1)}  # vocabulary, width, layers; 22.7M parameters, and 40k
SAME = (
    "predictions/*.parquet",
    "models/*/*.safetensors",
    "merges/*/mergekit.yaml",
    "merges/*/merge.json",
    "scores/*.json",
)


def copy(target: Path) -> Path:
    """Copy the files that git tracks, in their current state, and link the environment."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name, follow_symlinks=False)
    (target / ".venv").symlink_to((ROOT / ".venv").resolve())
    return target


def prepare(target: Path, number: int, size: str = "minilm") -> Path:
    """Return a copy with the experiment of ``number`` merges and finished experts, without merges or predictions."""
    at = copy(target)
    factors = [round(0.1 + i / 100, 2) for i in range(number)]
    merges = [{"method": "task_arithmetic", "members": ["shard-*"], "lambda": factors}]
    (at / CONFIG).write_text(yaml.safe_dump({**EXPERIMENT, "merges": merges}))
    write_bert(at / "checkpoints/bert", *SIZES[size])
    snakemake(at, "experts", "--profile", "profiles/local")
    return at


def write_bert(folder: Path, vocabulary: int, width: int, layers: int) -> None:
    """Write a BERT with random weights, and a tokenizer of a few hundred pieces."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from mllm.data.synthetic import generate
    from mllm.models.scratch import train_tokenizer

    torch.manual_seed(0)
    texts = [line.split("\t")[3] for line in generate(400, 3, 1)[0].splitlines() if line.count("\t") == 6]
    tokenizer = train_tokenizer(texts, 600, 128)
    config = BertConfig(
        vocab_size=vocabulary, hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // 32,
        intermediate_size=4 * width, pad_token_id=tokenizer.pad_token_id, num_labels=3,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def recipes(at: Path) -> dict[str, Any]:
    """Return the experiment's merges by name."""
    from mllm.experiment import grid
    from mllm.experiment.load import load

    return dict(grid.build(load(str(at / CONFIG))).merges)


def predictions(at: Path) -> list[str]:
    """Return the files with which a run of all merges ends."""
    return [str(RESULTS / f"predictions/{name}.parquet") for name in recipes(at)]


def snakemake(at: Path, *arguments: str, config: str = CONFIG, **environment: str) -> str:
    """Run the copy's workflow; return its output."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    inherited = {**os.environ, "PATH": path}
    inherited.pop("PYTHONDONTWRITEBYTECODE", None)  # the copy's modules are compiled once, as in any checkout
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *arguments, "--configfile", config],
        cwd=at, env={**inherited, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stdout[-5000:])
    return done.stdout


def arithmetic(at: Path) -> tuple[float, float]:
    """Return processor seconds of a merge's and a prediction's arithmetic only, with one thread; the best of 3.

    The merge's arithmetic reads every tensor from the page cache and computes. The prediction's is the model's passes
    over all reviews. Freed memory is kept, as jobs keep it: filling fresh pages with zeros
    is not arithmetic.
    """
    import torch

    from mllm.core import compute
    from mllm.data import labelled
    from mllm.merging.merge import Merge
    from mllm.models import families, loading, tokens
    from mllm.prediction import run_model

    torch.set_num_threads(1)
    compute.keep_freed_memory()
    recipe = next(iter(recipes(at).values())).canonical()
    folders = {name: at / RESULTS / "models" / name for name in [*recipe["members"], recipe["base"]]}
    rows = labelled.labelled(at / RESULTS / "data", ("valid", "test"), "sentiment")
    card = json.loads((folders[recipe["base"]] / "model.json").read_text())
    family = families.load("classifier")
    scorer: Any = family.scorer(card, *loading.load_model(folders["shard-0"]), ["a", "b", "c"], [])
    read = tokens.encode(scorer, rows["review"].to_list())

    def merge() -> None:
        for _ in Merge(recipe, folders, folders[recipe["base"]]).tensors():
            pass

    return processor_seconds(merge), processor_seconds(lambda: run_model.log_probabilities(scorer, read))


def processor_seconds(work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(3):
        begin = time.process_time()
        work()
        best = min(best, time.process_time() - begin)
    return best


def digests(results: Path) -> dict[str, str]:
    """Return path -> digest of each result that must not depend on how jobs start."""
    files = sorted(f for pattern in SAME for f in results.glob(pattern))
    return {str(f.relative_to(results)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
