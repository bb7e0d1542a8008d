"""Record the costs of predictions: one file beside each candidate's predictions."""

from dataclasses import dataclass
from typing import Any, ClassVar

from mllm.core.records import Record


@dataclass(frozen=True, kw_only=True)
class Cost(Record):
    """Seconds, bytes and operations; None where unknown, as for predictions made elsewhere."""

    VERSION: ClassVar[int] = 1

    reviews: int
    """Validation and test reviews that were predicted."""
    identity: str | None = None
    """Digest of all that determines the predictions: weights, reviews, prompt, code."""
    n_parameters: int | None = None
    parameters_of_whole: int | None = None
    """Parameters of the complete model for several tasks, with the heads of all tasks; shared weights count once."""
    weights_bytes: int | None = None
    flops_per_review: int | None = None
    """Floating-point operations of a pass over a review of mean length."""
    train_seconds: float | None = None
    load_seconds: float | None = None
    predict_seconds: float | None = None
    shared_layers: int | None = None
    """First layers whose states another candidate computed: predict_seconds excludes them, and speeds are unknown."""
    reviews_per_second: float | None = None
    peak_memory_bytes: int | None = None
    peak_gpu_memory_bytes: int | None = None
    device: str | None = None
    gpus: int | None = None
    dtype: str | None = None
    start_seconds: float | None = None
    """From the start of the process to the first review."""
    tokenise_seconds: float | None = None
    write_seconds: float | None = None
    cut_reviews: int | None = None
    mean_tokens: float | None = None
    tokens_per_second: float | None = None
    device_peak_flops: int | None = None
    share_of_peak: float | None = None
    """Operations per second, divided by the device's peak."""
    blend: dict[str, Any] | None = None
    """Values that a blend fitted on validation."""
    cross_validation: dict[str, Any] | None = None
    """Values that a baseline chose on train."""
