"""Read candidates side by side: their metrics on the same resamples, their labels of the same test reviews."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mllm.core.arrays import Array
from mllm.core.files import read_json
from mllm.prediction.prediction_tables import SPLITS

KINDS = ("raw", "calibrated")


class Pairs:
    """Read the resamples and labels that ``score`` wrote to compare a task's candidates.

    Args:
        folder: results/<name>/scores.
        task: whose candidates.
        runs: candidate -> its runs, for candidates with several.
    """

    def __init__(self, folder: Path, task: str, runs: Mapping[str, Sequence[str]] | None = None) -> None:
        self.folder, self.task, self.runs = folder, task, runs or {}
        index = read_json(folder / f"resamples-{task}.json")
        self.places = {name: i for i, name in enumerate(index["candidates"])}
        self.metrics = {name: i for i, name in enumerate(index["metrics"])}
        self.decided: list[str] = index["decided"]
        """Metrics for which decisions are tuned."""
        self.told_apart: dict[str, int] = index["told_apart"]
        """Number of test reviews that some candidate tells apart, and how many of these are also in validation."""
        self._draws = {s: np.load(folder / f"resamples-{task}-{s}.npy", mmap_mode="r") for s in SPLITS}

    def draws(self, candidates: Sequence[str], metric: str, split: str = "test", kind: str = "raw") -> Array:
        """Return (candidates, resamples) of one metric, the mean over runs where a candidate has several."""
        return np.stack(
            [self.draws_of_runs(self.runs.get(c, [c]), metric, split, kind).mean(axis=0) for c in candidates]
        )

    def draws_of_runs(self, runs: Sequence[str], metric: str, split: str = "test", kind: str = "raw") -> Array:
        """Return (runs, resamples) of one metric."""
        chosen = [self.places[run] for run in runs]
        return np.asarray(self._draws[split][chosen, KINDS.index(kind), self.metrics[metric]], dtype=float)

    def left_out(self, candidates: Sequence[str], metric: str) -> Array:
        """Return (candidates, first resamples) of one metric on the validation texts that each resample leaves out."""
        found = np.load(self.folder / f"resamples-{self.task}-left-out.npy", mmap_mode="r")[:, self.metrics[metric]]
        return np.stack(
            [found[[self.places[r] for r in self.runs.get(c, [c])]].astype(float).mean(0) for c in candidates]
        )

    def labels(self, runs: Sequence[str]) -> Array:
        """Return (runs, test reviews) predicted classes."""
        return np.asarray(
            np.load(self.folder / f"labels-{self.task}.npy", mmap_mode="r")[[self.places[r] for r in runs]]
        )

    def tuned(self, runs: Sequence[str], metric: str) -> Array:
        """Return (runs, test reviews) classes decided for a metric of decisions, tuned on validation."""
        chosen = [self.places[run] for run in runs]
        found = np.load(self.folder / f"tuned-{self.task}.npy", mmap_mode="r")
        return np.asarray(found[chosen, self.decided.index(metric)])

    def constant(self, metric: str) -> Array:
        """Return (1 + resamples,) value and draws on test of the constant answer, validation's shares of the classes."""
        return np.asarray(
            np.load(self.folder / f"resamples-{self.task}-constant.npy")[self.metrics[metric]], dtype=float
        )
