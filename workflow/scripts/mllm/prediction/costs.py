"""What predictions cost: one record beside each candidate's predictions."""

from dataclasses import dataclass
from typing import Any, ClassVar

from mllm.core.records import Record


@dataclass(frozen=True, kw_only=True)
class Cost(Record):
    """Seconds, bytes and operations; None where it is not known, as for predictions made elsewhere."""

    VERSION: ClassVar[int] = 1

    reviews: int
    """Validation and test reviews that were predicted."""
    identity: str | None = None
    """Digest of what the predictions follow from: weights, reviews, prompt, code."""
    n_parameters: int | None = None
    parameters_of_whole: int | None = None
    """Of the model over several tasks that it is a part of, with the heads of all tasks; weights that tasks share count once."""
    weights_bytes: int | None = None
    flops_per_review: int | None = None
    """Floating-point operations of a pass over a review of mean length."""
    train_seconds: float | None = None
    load_seconds: float | None = None
    predict_seconds: float | None = None
    shared_layers: int | None = None
    """First layers whose states another candidate computed: predict_seconds is without them, and speeds are not known."""
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
    """Operations per second, over those of the device."""
    blend: dict[str, Any] | None = None
    """What a blend learnt on validation."""
    cross_validation: dict[str, Any] | None = None
    """What a baseline chose on train."""
