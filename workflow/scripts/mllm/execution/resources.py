"""Estimate a job's memory, time and GPU memory from the model's shape and the number of reviews.

The estimates are rough and rather too large: a killed job costs more than one that requested a little too much.
`results/<name>/efficiency.csv` shows what jobs really used.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROCESS_MB = 2500  # Python with torch, transformers and CUDA's libraries, before any weights
FLOPS = 5e12  # operations per second of the slowest useful GPU, sustained, in single precision
TOKENS = 160  # of a review, on average: 85 words
START_MINUTES = 15  # added to every job: a node's first reading of the environment over a slow network
ALL_REVIEWS = 215_063  # UCI 462, both files
REVIEW_BYTES = (
    320  # assumed size of a review in a file; the official files have 520 on average, but too little memory kills jobs
)


@dataclass(frozen=True)
class Shape:
    """A transformer's size: parameters, layers, width."""

    parameters: int
    layers: int
    width: int

    def times(self, number: int) -> "Shape":
        """Return the shape of several such models in one."""
        return Shape(self.parameters * number, self.layers, self.width)

    @property
    def matrices(self) -> int:
        """Return the parameters that multiply each token: per layer 12 squares of the width, 4 of them in attention."""
        return min(self.parameters, 12 * self.layers * self.width**2)

    @property
    def mb(self) -> float:
        """Return the size of the weights in single precision, in MiB."""
        return self.parameters * 4 / 2**20


GPT2 = Shape(124_439_808, 12, 768)


def shape_of(folders: list[Path], entry: Any = None) -> Shape:
    """Read a checkpoint's shape from the first existing folder, else from its entry; else use GPT-2's."""
    folder = next((f for f in folders if (f / "config.json").exists()), None)
    if folder:
        facts = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        size = sum(f.stat().st_size for f in folder.glob("*.safetensors"))
        width = next((facts[k] for k in ("n_embd", "hidden_size", "d_model") if k in facts), GPT2.width)
        layers = next((facts[k] for k in ("n_layer", "num_hidden_layers", "num_layers") if k in facts), GPT2.layers)
        bits = 2 if facts.get("dtype", facts.get("torch_dtype")) in ("float16", "bfloat16") else 4
        return Shape(size // bits or GPT2.parameters, layers, width)
    if entry is not None and getattr(entry, "source", "") == "scratch":
        # Twelve squares of the width per layer: attention four, the two halves of the feed-forward four each.
        return Shape(entry.layers * 12 * entry.width**2 + entry.vocabulary * entry.width, entry.layers, entry.width)
    return GPT2


def review_rows(data: Any, split_json: Path) -> int:
    """Return the number of reviews: counted if they are split, else estimated by file size or the source's."""
    if split_json.exists():
        return sum(json.loads(split_json.read_text(encoding="utf-8"))["rows"].values())
    files = [Path(file) for file in (getattr(data, "train", None), getattr(data, "test", None)) if file]
    if files and all(file.is_file() for file in files):
        packed = any(file.suffix in (".zip", ".gz") for file in files)
        return max(100, sum(file.stat().st_size for file in files) // (REVIEW_BYTES // 4 if packed else REVIEW_BYTES))
    return int(getattr(data, "rows", None) or ALL_REVIEWS)


def data_mb(rows: int) -> int:
    """Estimate memory for cleaning, splitting, describing: 0.7 GB for 215,000 reviews, 3.1 GB for ten times as many."""
    return 1000 + rows // 500


def baseline_mb(rows: int) -> int:
    """Estimate memory for TF-IDF's matrix of words and pairs of words, and a row of weights for each class."""
    return 1500 + rows // 40


def score_mb(rows: int, candidates: int, classes: int) -> int:
    """Estimate memory for 2,000 resamples of all texts, at most twice, in four bytes each, and all candidates' metrics.

    One candidate took 202 MB with 10 classes, 350 with 200 (of 5,000 reviews), 2,143 with 500 (of 3,000).
    """
    return 800 + rows // 60 + candidates + classes**2 // 128


def classes_of(tasks: list[Any]) -> int:
    """Return the largest number of classes among an experiment's tasks; ratings have 10."""
    return max(len(task.classes or ()) or task.top or 10 for task in tasks)


def score_minutes(rows: int, candidates: int) -> int:
    """Estimate three times the measured time: about a second per candidate, with slices, on the official reviews."""
    return 15 + candidates * rows // 4_000_000


def train_mb(shape: Shape, rows: int, frozen: bool = False) -> int:
    """Estimate memory for weights, gradients, Adam's two moments, a checkpoint, and frozen layers' states.

    Those states have at most 1 GiB.
    """
    return PROCESS_MB + math.ceil(5 * shape.mb) + rows // 100 + 1024 * frozen


def train_gpu_mb(shape: Shape, batch: int, length: int) -> int:
    """Estimate GPU memory for weights, gradients, moments, and the activations that the backward pass needs.

    In half precision, activations have 34 bytes per token, layer and unit of width (Korthikanti et al. 2022, arXiv
    2205.05198). Fused attention does not keep the attention scores. Single precision doubles that, and 9 % are added
    for free space between them: GPT-2 in batches of 128 took 44.3 GB on an H100.
    """
    return 1000 + math.ceil(4 * shape.mb + batch * length * shape.layers * shape.width * 74 / 2**20)


def train_minutes(shape: Shape, tokens: float) -> int:
    """Estimate minutes by six operations per parameter and token."""
    return _minutes(6 * shape.parameters * tokens)


def disk_mb(trained: list[Shape], merge: Shape, merges: int, keep_all: bool) -> int:
    """Estimate disk space for trained models, checkpoints and merges.

    Four trainings at once have two checkpoints each, three times the weights. At most 20 merges exist at once unless
    all are kept.
    """
    at_once = sorted((s.mb for s in trained), reverse=True)[:4]
    weights = sum(s.mb for s in trained) + 6 * sum(at_once) + (merges if keep_all else min(merges, 20)) * merge.mb
    return 200 + math.ceil(weights)


def predict_mb(shape: Shape) -> int:
    return PROCESS_MB + math.ceil(2 * shape.mb)


def predict_gpu_mb(shape: Shape, gpus: int = 1, asked: bool = False) -> int:
    """Estimate memory on each GPU over which the layers are spread; models that are asked score the full vocabulary.

    On an H100 GPT-2 and BERT took 2.3 and 2.5 GB, FLAN-T5-base 6.0, LLaMA of 135M parameters 7.3, contexts included.
    """
    return (7000 if asked else 2000) + math.ceil(shape.mb / gpus)


def predict_minutes(shape: Shape, rows: int) -> int:
    """Estimate minutes by two operations per parameter and token."""
    return _minutes(2 * shape.parameters * rows * TOKENS)


def merge_mb(shape: Shape, members: int) -> int:
    """Estimate memory for all members, the base, the result and one copy."""
    return PROCESS_MB + math.ceil((members + 3) * shape.mb)


def merge_gpu_mb(shape: Shape, members: int) -> int:
    """Estimate GPU memory for one tensor of each model, at most a quarter of it, and the same again for sorting."""
    return 2000 + math.ceil((2 * members + 3) * shape.mb / 4)


def merge_minutes(shape: Shape, members: int) -> int:
    """Estimate minutes for reading and writing at a slow network disk's 20 MB/s."""
    return START_MINUTES + math.ceil((members + 2) * shape.mb / 20 / 60)


def _minutes(operations: float) -> int:
    """Return twice the time at the assumed speed, plus fifteen minutes to start."""
    return START_MINUTES + math.ceil(2 * operations / FLOPS / 60)
