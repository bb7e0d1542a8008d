"""Make the table of runs, one row for each run of each candidate, and combine a candidate's runs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mllm.core.arrays import Array
from mllm.evaluation import metrics, replicates
from mllm.evaluation.replicates import Repetitions
from mllm.evaluation.score_files import Scores
from mllm.evaluation.shared_draws import KINDS, Pairs
from mllm.prediction.costs import Cost
from mllm.prediction.prediction_tables import COST

ENDS = (("", "value"), ("_low", "low"), ("_high", "high"))


def read_scores(scores: Path, predictions: Path, runs: list[str]) -> list[tuple[Scores, Cost]]:
    """Read each run's score file and its cost."""
    return [(Scores.read(scores / f"{c}.json"), Cost.read(predictions / f"{c}.cost.json")) for c in runs]


def table(scores: list[tuple[Scores, Cost]]) -> pl.DataFrame:
    """Make one row per run, in the order of ``scores``.

    Returns:
        candidate, run, replicate, kind, method, task, members, one column per parameter, recipe (all parameters as JSON), then
        ``valid_<metric>``, ``valid_<metric>_low``, ``valid_<metric>_high``, the same for test, both again as
        ``<split>_calibrated_<metric>``, metrics of decisions as ``<split>_tuned_<metric>``, and the cost. ``parameters_of_whole``
        exists where some candidate is a part of a model over several tasks, ``<split>_contextual_<metric>`` and
        ``<split>_batch_<metric>`` where some is asked by a prompt, ``all_<metric>`` where the predictions were made elsewhere.
    """
    names = dict.fromkeys(name for s, _ in scores for name in s.parameters)
    trained = {s.run or s.candidate: cost.train_seconds for s, cost in scores}
    members = {s.run or s.candidate: s.members for s, _ in scores}
    priors = dict.fromkeys(name for s, _ in scores for name in s.priors)
    costs = [*COST, *(["parameters_of_whole"] if any(cost.parameters_of_whole for _, cost in scores) else [])]
    rows = []
    for s, cost in scores:
        row: dict[str, Any] = {"candidate": s.candidate, "run": s.run or s.candidate, "replicate": s.replicate}
        row |= {k: getattr(s, k) for k in ("kind", "method", "task")}
        row["members"] = " ".join(s.members)
        row |= {name: _cell(s.parameters.get(name)) for name in names}
        row["recipe"] = json.dumps(s.parameters, sort_keys=True)
        row |= _estimates(s, list(priors))
        row |= {name: getattr(cost, name) for name in costs}
        row["train_seconds"] = train_seconds(row["run"], members, trained)
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None)


def _estimates(s: Scores, priors: list[str]) -> dict[str, float | None]:
    """Return a run's scores of all kinds, each with its interval."""
    without = [(f"{name}_", s.priors.get(name) or {"valid": {}, "test": {}}) for name in priors]
    found: dict[str, float | None] = {}
    for kind, parts in (("", s.scores), ("calibrated_", s.calibrated), ("tuned_", s.tuned), *without):
        for split in (split for split in ("valid", "test", "all") if split in parts):
            for m in metrics.OF_CONFUSION if kind == "tuned_" else metrics.METRICS:
                value = parts[split].get(m, {})
                found |= {f"{split}_{kind}{m}{end}": value.get(key) for end, key in ENDS}
    return found


def train_seconds(name: str, members: dict[str, list[str]], own: dict[str, float | None]) -> float | None:
    """Sum the seconds of all trainings beneath a run, each once; None where one is not known."""
    beneath: set[str] = set()

    def collect(one: str) -> None:
        beneath.add(one)
        for member in members.get(one, []):
            collect(member)

    collect(name)
    seconds = [own.get(one) for one in sorted(beneath)]
    return None if any(s is None for s in seconds) else round(sum(s for s in seconds if s is not None), 1)


def over_runs(runs: pl.DataFrame, pairs: dict[str, Pairs], metric: str) -> pl.DataFrame:
    """Make one row per candidate: its only run, or the means of its runs with intervals over texts and trainings.

    Args:
        runs: as from :func:`table`.
        pairs: task -> draws; needed where a candidate has several runs.
        metric: names the best run on validation; its spread over runs gets columns.

    Returns:
        The columns of ``runs``, and of each candidate: ``runs``, ``replicates`` (runs with trainings of their own), ``best_run``,
        ``valid_<metric>_sd`` and ``test_<metric>_sd`` (standard deviations between repetitions).
    """
    parts = []
    for (task, candidate), part in runs.group_by("task", "candidate", maintain_order=True):
        best = part.sort(f"valid_{metric}", descending=metrics.sign(metric) > 0, nulls_last=True, maintain_order=True)
        added: dict[str, Any] = {
            "runs": part.height, "replicates": part["replicate"].n_unique(), "best_run": best["run"][0],
            **{f"{split}_{metric}_sd": None for split in ("valid", "test")},
        }  # fmt: skip
        row = part.row(0, named=True)
        if part.height > 1:
            repeated = replicates.repetitions(part)[str(candidate)]
            row |= _means(part, repeated, pairs[str(task)])
            added |= {
                f"{split}_{metric}_sd": float(np.std(per_repetition(part, repeated, f"{split}_{metric}"), ddof=1))
                for split in ("valid", "test")
            }
        parts.append(row | added)
    sd = dict.fromkeys((f"{split}_{metric}_sd" for split in ("valid", "test")), pl.Float64)
    return pl.DataFrame(parts, infer_schema_length=None, schema_overrides=sd).drop("run", "replicate")


def per_repetition(part: pl.DataFrame, repeated: Repetitions, column: str) -> Array:
    """Return (repetitions,) means of a column over the runs of each repetition of a candidate."""
    value = dict(zip(part["run"], part[column], strict=True))
    return np.array([np.mean([value[run] for run in runs]) for runs in repeated], dtype=float)


def noise(runs: pl.DataFrame, names: list[str], column: str, resamples: int) -> Array:
    """Return (candidates, resamples): how other trainings would change a column of some candidates."""
    repeated = replicates.repetitions(runs.filter(pl.col("candidate").is_in(names)))
    return replicates.training_noise([per_repetition(runs, repeated[name], column) for name in names], resamples)


def _means(part: pl.DataFrame, repeated: Repetitions, pairs: Pairs) -> dict[str, Any]:
    """Average runs: estimates with new intervals, and costs."""
    found: dict[str, Any] = {}
    for low in (c for c in part.columns if c.endswith("_low") and part[c].null_count() == 0):
        column = low.removesuffix("_low")
        ends = [per_repetition(part, repeated, c) for c in (column, low, f"{column}_high")]
        spread, *interval = replicates.interval(ends[0], ends[1], ends[2], covariance(pairs, repeated, column))
        found |= {column: spread.value, low: interval[0], f"{column}_high": interval[1]}
    numbers = [c for c in COST if part[c].dtype.is_float() and part[c].null_count() == 0]
    return found | {c: float(part[c].mean()) for c in numbers}  # type: ignore[arg-type]


def covariance(pairs: Pairs, repeated: Repetitions, column: str) -> Array | None:
    """Return the (repetitions, repetitions) covariance over texts of a column's estimates; None where it has no resamples."""
    split, _, rest = column.partition("_")
    kind = next((k for k in KINDS if rest.startswith(f"{k}_")), "raw")
    metric = rest.removeprefix(f"{kind}_")
    if split not in ("valid", "test") or metric not in pairs.metrics:
        return None
    return np.cov([pairs.draws_of_runs(runs, metric, split, kind).mean(axis=0) for runs in repeated])


def _cell(value: Any) -> Any:
    return json.dumps(value, sort_keys=True) if isinstance(value, dict) else value
