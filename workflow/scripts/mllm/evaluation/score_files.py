"""Define score files: ``score`` writes one for each run; the leaderboard, the comparisons and the report read them."""

from dataclasses import dataclass
from typing import Any, ClassVar

from mllm.core.records import Record

Estimates = dict[str, dict[str, float | None]]
"""metric (or class) -> {value, low, high}: an estimate with the ends of its 95 % interval."""


@dataclass(frozen=True, kw_only=True)
class Scores(Record):
    """Hold one run's scores, and its candidate's entry in the experiment."""

    VERSION: ClassVar[int] = 1
    WHOLE: ClassVar[bool] = True

    candidate: str
    kind: str
    method: str
    task: str
    members: list[str]
    parameters: dict[str, Any]
    scores: dict[str, Estimates]
    """valid, test (and all, if the predictions were made elsewhere) -> each metric."""
    calibrated: dict[str, Estimates]
    """The same after temperature and class offsets are fitted on validation."""
    tuned: dict[str, Estimates]
    """split -> each metric of decisions, after class offsets are fitted on validation for it."""
    offsets: dict[str, float]
    """metric -> factor of the classes' log shares that is subtracted for it."""
    priors: dict[str, dict[str, Estimates]]
    """For models asked by a prompt: contextual, batch -> split -> each metric without that prior."""
    recall: dict[str, Estimates]
    """split -> each class."""
    confusion: dict[str, list[list[float]]]
    """split -> (classes, classes) sums of the texts' weights, true class first."""
    reliability: dict[str, list[list[float]]]
    """raw, calibrated -> (weight, confidence, accuracy) of each level of confidence on test."""
    counts: dict[str, dict[str, int]]
    """split -> reviews and texts."""
    slices: list[dict[str, Any]]
    """Slices of the test reviews: column, slice, reviews, texts, scores."""
    replicate: int = 1
    """Number of the replicate whose trainings it is, or has beneath it."""
    run: str | None = None
    """Name of the run; None for the first run, which has the candidate's name."""
