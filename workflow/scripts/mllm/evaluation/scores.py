"""Score all candidates of a task on the same labelled reviews and the same resamples."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mllm.core.arrays import Array, text_weights
from mllm.core.files import write_json
from mllm.data import text_statistics
from mllm.data.labels import class_names, is_ordered
from mllm.evaluation import calibration, decisions, metrics, slices
from mllm.evaluation.bootstrap import RESAMPLES, Sample
from mllm.evaluation.shared_draws import KINDS
from mllm.prediction.prediction_tables import SPLITS, Reviews


@dataclass(frozen=True)
class Scored:
    """Hold the part of a candidate's score file that predictions give, and its metrics on each resample."""

    scores: dict[str, Any]
    """The fields of :class:`mllm.evaluation.score_files.Scores` that predictions give."""
    draws: dict[str, Array]
    """split -> (raw and calibrated, metrics, resamples)."""
    labels: Array
    """(test reviews,) predicted classes."""
    left_out: Array
    """(metrics, first resamples) of the raw probabilities on the validation texts that each resample leaves out."""
    tuned: Array
    """(metrics of decisions, test reviews) classes decided for each metric."""
    marks: dict[str, Array]
    """split -> (reviews,) a digest of each review's probabilities: equal for copies of a text."""


class Bench(Reviews):
    """Add resamples of texts to a task's reviews, and score all candidates on them.

    Args:
        data: folder that split_reviews or import_predictions wrote.
        task: its entry in the experiment, with the names of its classes and whether they are ordered.
        seed: of the resamples, and of the folds in which validation is calibrated.
    """

    def __init__(self, data: Path, task: dict[str, Any], seed: int) -> None:
        super().__init__(data, task["name"])
        self.seed, self.names, self.ordered = seed, class_names(task, self.names), is_ordered(task)
        # Resamples draw all texts of a split, with a label or without, so that all tasks share the draws.
        split = {s: pl.read_parquet(data / f"{s}.parquet", columns=["group"])["group"].to_numpy() for s in SPLITS}
        self.samples = {s: self._sample(rows, split=split[s]) for s, rows in self.rows.items()}
        # Tables made elsewhere may have been split into validation and test here: score both together, too.
        self.whole = self._sample(pl.concat(self.rows.values()), 0) if self.facts.get("imported") else None
        # No choice uses slices: they are for the report, so only test reviews have them.
        self.slices = slices.slices(_described(self.rows["test"]), self.facts["label"])
        self._draws: dict[str, list[Array]] = {s: [] for s in SPLITS}
        self._labels: list[Array] = []
        self._tuned: list[Array] = []
        self._left_out: list[Array] = []
        self._marks = {s: np.zeros(rows.height, dtype=np.uint64) for s, rows in self.rows.items()}

    def _sample(self, rows: pl.DataFrame, resamples: int = RESAMPLES, split: Array | None = None) -> Sample:
        truth, groups = rows[self.column].to_numpy(), rows["group"].to_numpy()
        return Sample(truth, groups, len(self.names), self.ordered, self.seed, resamples, split)

    @property
    def metrics(self) -> list[str]:
        return self.samples["test"].metrics

    @property
    def decided(self) -> list[str]:
        """Return the metrics of decisions."""
        return [name for name in self.metrics if name in metrics.OF_CONFUSION]

    def score(self, path: Path) -> Scored:
        """Score one candidate's prediction file."""
        logp = self.read(path)
        calibrated = self._calibrated(logp)
        tuned = self._tune(calibrated)
        found = {
            (s, kind): one
            for s, sample in self.samples.items()
            for kind, one in zip(KINDS, sample.evaluate_all([logp[s], calibrated[s]]), strict=True)
        }
        raw = {s: found[s, "raw"] for s in self.samples}
        if self.whole:
            raw["all"] = self.whole.evaluate(np.concatenate([logp[s] for s in SPLITS]))
        scores = {
            "scores": {s: e.intervals() for s, e in raw.items()},
            "calibrated": {s: found[s, "calibrated"].intervals() for s in self.samples},
            "tuned": {s: self.samples[s].decided(getattr(tuned, s)) for s in self.samples},
            "offsets": tuned.strength,
            "priors": {kind: self._without(self.read(path, kind)) for kind in self.priors(path)},
            "recall": {s: e.recalls(self.names) for s, e in raw.items()},
            "confusion": {s: e.confusion.round(6).tolist() for s, e in raw.items()},
            "reliability": {
                kind: found["test", kind].reliability.round(6).tolist() for kind in KINDS
            },
            "counts": {
                s: {"reviews": rows.height, "texts": rows["group"].n_unique()} for s, rows in self.rows.items()
            },
            "slices": self._slices(logp["test"]),
        }  # fmt: skip
        draws = {s: np.stack([_table(found[s, kind].draws) for kind in KINDS]) for s in self.samples}
        marks = {s: _digest(logp[s]) for s in self.samples}
        left_out = _table(self.samples["valid"].on_left_out(logp["valid"]))
        decided = np.stack([tuned.test[name] for name in self.decided])
        return Scored(scores, draws, logp["test"].argmax(1).astype(np.uint16), left_out, decided, marks)

    def _without(self, logp: dict[str, Array]) -> dict[str, Any]:
        return {s: self.samples[s].evaluate(logp[s]).intervals() for s in self.samples}

    def _calibrated(self, logp: dict[str, Array]) -> dict[str, Array]:
        """Calibrate on validation only; validation itself out of fold."""
        rows = pl.concat([self.rows[s].select(self.column, "group") for s in SPLITS])
        truth, groups = rows[self.column].to_numpy(), rows["group"].to_numpy()
        cut = self.rows["valid"].height
        valid = np.arange(rows.height) < cut
        done = calibration.calibrate(np.concatenate([logp[s] for s in SPLITS]), truth, groups, valid, self.seed)
        return {"valid": done[:cut], "test": done[cut:]}

    def _tune(self, calibrated: dict[str, Array]) -> decisions.Tuned:
        """Tune decisions for each metric on validation only."""
        valid = self.samples["valid"]
        fold = calibration.folds(self.rows["valid"]["group"].to_numpy(), self.seed)
        return decisions.tune(calibrated["valid"], calibrated["test"], valid.truth, valid.weights, fold, self.decided)

    def _slices(self, logp: Array) -> list[dict[str, Any]]:
        found = self.samples["test"].evaluate_parts(logp, slices.masks(self.slices))
        return [
            {"column": column, "slice": name, "reviews": int(mask.sum()),
             "texts": self.rows["test"]["group"].filter(mask).n_unique(), "scores": part}
            for ((column, name), mask), part in zip(self.slices.items(), found, strict=True)
        ]  # fmt: skip

    def keep(self, one: Scored) -> None:
        """Keep a candidate's draws and labels for :meth:`write`."""
        for split, draws in one.draws.items():
            self._draws[split].append(draws)
        self._labels.append(one.labels)
        self._tuned.append(one.tuned)
        self._left_out.append(one.left_out)
        for split, marks in one.marks.items():
            self._marks[split] = self._marks[split] * np.uint64(6364136223846793005) + marks

    def write(self, folder: Path, candidates: list[str]) -> None:
        """Write the arrays for paired comparisons, in the order in which candidates were kept; see ``shared_draws.Pairs``."""
        for split, draws in self._draws.items():
            np.save(folder / f"resamples-{self.task}-{split}.npy", np.stack(draws))
        np.save(folder / f"labels-{self.task}.npy", np.stack(self._labels))
        np.save(folder / f"resamples-{self.task}-left-out.npy", np.stack(self._left_out))
        np.save(folder / f"tuned-{self.task}.npy", np.stack(self._tuned))
        np.save(folder / f"resamples-{self.task}-constant.npy", self._constant())
        marks = {s: np.unique(m) for s, m in self._marks.items()}
        alike = {"test": len(marks["test"]), "also_in_valid": len(np.intersect1d(marks["test"], marks["valid"]))}
        write_json(
            folder / f"resamples-{self.task}.json",
            {"candidates": candidates, "metrics": self.metrics, "decided": self.decided, "told_apart": alike},
        )

    def _constant(self) -> Array:
        """Return (metrics, 1 + resamples) value and draws on test of the constant answer, validation's shares of the classes."""
        rows = self.rows["valid"]
        counts = np.bincount(rows[self.column].to_numpy(), text_weights(rows["group"].to_numpy()), len(self.names))
        logp = np.log(np.maximum(counts / counts.sum(), 1e-12))
        found = self.samples["test"].evaluate(np.tile(logp, (self.rows["test"].height, 1)))
        return np.insert(_table(found.draws), 0, list(found.values.values()), axis=1)


def _described(rows: pl.DataFrame) -> pl.DataFrame:
    """Add text statistics to reviews, where their texts are known."""
    return rows.hstack(text_statistics.statistics(rows["review"])) if "review" in rows.columns else rows


def _digest(logp: Array) -> Array:
    """Return (reviews,) a digest per row; equal rows have equal digests."""
    bits = np.ascontiguousarray(logp, dtype=np.float32).view(np.uint32).astype(np.uint64)
    odd = np.random.default_rng(0).integers(1, 2**63, bits.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    return np.asarray((bits * odd).sum(axis=1, dtype=np.uint64))


def _table(draws: dict[str, Array]) -> Array:
    """Stack draws to (metrics, resamples)."""
    return np.stack(list(draws.values())).astype(np.float32)
