"""Candidates side by side: their metrics on the same resamples, their labels of the same test reviews."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mllm.core.arrays import Array
from mllm.core.files import read_json
from mllm.prediction.prediction_tables import SPLITS

KINDS = ("raw", "calibrated")


class Pairs:
    """What ``score`` wrote of a task's candidates to compare them by: the same resamples, the same reviews.

    Args:
        folder: results/<name>/scores.
        task: whose candidates.
    """

    def __init__(self, folder: Path, task: str) -> None:
        self.folder, self.task = folder, task
        index = read_json(folder / f"resamples-{task}.json")
        self.candidates = {name: i for i, name in enumerate(index["candidates"])}
        self.metrics = {name: i for i, name in enumerate(index["metrics"])}
        self.decided: list[str] = index["decided"]
        """Metrics of decisions, for each of which decisions are tuned."""
        self.told_apart: dict[str, int] = index["told_apart"]
        """Test reviews that some candidate tells apart, and how many of these validation has too."""
        self._draws = {s: np.load(folder / f"resamples-{task}-{s}.npy", mmap_mode="r") for s in SPLITS}

    def draws(self, candidates: Sequence[str], metric: str, split: str = "test", kind: str = "raw") -> Array:
        """(candidates, resamples) of one metric."""
        chosen = [self.candidates[c] for c in candidates]
        return np.asarray(self._draws[split][chosen, KINDS.index(kind), self.metrics[metric]], dtype=float)

    def left_out(self, candidates: Sequence[str], metric: str) -> Array:
        """(candidates, first resamples) of one metric on the validation texts that each of the resamples leaves out."""
        chosen = [self.candidates[c] for c in candidates]
        found = np.load(self.folder / f"resamples-{self.task}-left-out.npy", mmap_mode="r")
        return np.asarray(found[chosen, self.metrics[metric]], dtype=float)

    def labels(self, candidates: Sequence[str]) -> Array:
        """(candidates, test reviews): predicted classes."""
        return np.asarray(
            np.load(self.folder / f"labels-{self.task}.npy", mmap_mode="r")[[self.candidates[c] for c in candidates]]
        )

    def tuned(self, candidates: Sequence[str], metric: str) -> Array:
        """(candidates, test reviews): classes decided for a metric of decisions, tuned on validation."""
        chosen = [self.candidates[c] for c in candidates]
        found = np.load(self.folder / f"tuned-{self.task}.npy", mmap_mode="r")
        return np.asarray(found[chosen, self.decided.index(metric)])

    def constant(self, metric: str) -> Array:
        """(1 + resamples,): value and draws on test of the constant answer, validation's shares of the classes."""
        return np.asarray(
            np.load(self.folder / f"resamples-{self.task}-constant.npy")[self.metrics[metric]], dtype=float
        )
