"""Estimate the time of a job that never ran here, from its sizes: for a run's estimate, not for its limits.

Times of empty jobs, steps and rows are those of the demonstration and of benchmarks/README.md on 2 cores.
"""

from typing import Any

from mllm.execution.resources import Shape

CLASSES = 5  # assumed classes of a task, where reviews per class are limited
TOKENS = 106  # of a review, on average: 85 words
CORE_FLOPS = (
    8e10  # per second of a CPU core, single precision: predictions of GPT-2 reach 9.7e10, trainings of MiniLM 6.8e10
)
GPU_FLOPS = 5e12  # per second of the slowest useful GPU
STEP = 0.05  # seconds of a training's step, beside its arithmetic
DISK = 200.0  # MB per second
EMPTY = {
    "prepare_base": 4.0, "train_expert": 3.0, "train_tasks": 3.0, "predict": 3.0, "merge": 1.5, "merge_tasks": 2.0, "mix_experts": 4.0, "fit_baseline": 3.0,
    "describe_reviews": 3.0, "diagnose_members": 2.0, "score": 3.0, "write_report": 4.0, "export": 10.0,
}  # fmt: skip
"""Rule -> seconds of a job with almost no work; other rules: 1."""
ROW = {"clean_reviews": 2e-5, "split_reviews": 5e-6, "describe_reviews": 3.5e-5, "tfidf": 1e-3}
"""Rule or baseline -> seconds per review."""
SCORE = 5e-6  # seconds per review and candidate


def training(hyper: dict[str, Any], part: dict[str, Any], shape: Shape, reviews: int, longest: int) -> dict[str, float]:
    """Estimate the operations and steps of a training.

    Args:
        hyper: the training's hyper-parameters.
        part: the part of the reviews to train on; a slice by a column counts as a third.
        shape: the model's shape.
        reviews: number of train reviews.
        longest: the largest number of tokens that the model reads of a review.
    """
    share = 1 / part.get("of", 3 if "where" in part else 1)
    distinct = min(reviews * share, part.get("cap", reviews) * CLASSES)
    read = hyper["steps"] * hyper["batch_size"] if "steps" in hyper else hyper["epochs"] * distinct
    frozen = 1.0 if hyper.get("head_only") else min(1.0, hyper.get("freeze", 0) / shape.layers)
    passes = 6 * (1 - frozen) * read + 2 * frozen * distinct  # frozen layers: forward, once
    return {"operations": passes * shape.matrices * min(TOKENS, longest), "steps": read / hyper["batch_size"]}


def prediction(shape: Shape, reviews: int, longest: int) -> float:
    """Estimate the operations of one pass over reviews, of which the model reads at most ``longest`` tokens each."""
    return 2.0 * shape.matrices * reviews * min(TOKENS, longest)


def seconds(
    rule: str, *, rows: int, operations: float = 0.0, steps: float = 0.0, mb: float = 0.0, cores: int = 1, gpus: int = 0
) -> float:
    """Estimate the seconds of one job.

    Args:
        rule: the job's rule, or the baseline that it fits.
        rows: number of reviews; for ``score``, times candidates.
        operations: floating-point operations of the model.
        steps: steps of a training.
        mb: size of weights read and written.
        cores: number of cores that it uses without GPUs.
        gpus: number of its GPUs.
    """
    speed = gpus * GPU_FLOPS or cores * CORE_FLOPS
    each = SCORE if rule == "score" else ROW.get(rule, 0.0)
    empty = EMPTY.get("fit_baseline" if rule in ("tfidf", "majority") else rule, 1.0)
    return empty + operations / speed + steps * STEP + mb / DISK + rows * each
