"""How members are related by what they predict: who errs where others do, and who knows the conditions of whom."""

from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from mllm.core.arrays import Array, text_weights
from mllm.evaluation import metrics, replicates, significance
from mllm.evaluation.score_files import Scores
from mllm.evaluation.shared_draws import Pairs

AGREEMENT = {
    "task": (pl.String, "task"),
    "first": (pl.String, "base or expert"),
    "second": (pl.String, "base or expert"),
    "agreement": (pl.Float64, "share of the test texts that both give the same label"),
    "both_wrong": (pl.Float64, "share of the texts that both label wrongly (double fault)"),
    "same_error": (pl.Float64, "share of the texts to which both give the same wrong label"),
    "error_jaccard": (pl.Float64, "both wrong / either wrong: 1 where they err on the same texts"),
    "phi": (pl.Float64, "correlation of being right; empty where one is always right or always wrong"),
}
CONDITIONS = {
    "task": (pl.String, "task"),
    "candidate": (pl.String, "base, expert, merge that won its method, blend or reference"),
    "kind": (pl.String, "of the candidate"),
    "trained_on": (pl.String, "conditions of the reviews that it, or its members, learned from; all: not chosen by condition"),
    "condition": (pl.String, "of the test reviews"),
    "reviews": (pl.Int64, "number of test reviews"),
    "metric": (pl.String, "compare.metric"),
    "value": (pl.Float64, "on these reviews"),
    "low": (pl.Float64, "95 % interval"),
    "high": (pl.Float64, ""),
    "normalised": (pl.Float64, "(value - base) / (this condition's own expert - base), empty where it has no expert of its own"),
}  # fmt: skip


def agreement(
    members: dict[str, list[str]], pairs: dict[str, Pairs], truth: dict[str, tuple[Array, Array]]
) -> pl.DataFrame:
    """Each two of a task's base and experts on test; the columns are those of AGREEMENT.

    Args:
        members: task -> candidates.
        pairs: task -> labels.
        truth: task -> class and text of each test review.
    """
    rows = []
    for task, names in members.items():
        true, groups = truth[task]
        labels, weights = pairs[task].labels(names), text_weights(groups)
        for i, j in combinations(range(len(names)), 2):
            found = significance.overlap(labels[i], labels[j], true, weights)
            rows.append({"task": task, "first": names[i], "second": names[j], **found})
    return pl.DataFrame(rows, schema={name: kind for name, (kind, _) in AGREEMENT.items()})


def by_condition(scores: list[Scores], shown: list[str], trained_on: dict[str, list[str]], metric: str) -> pl.DataFrame:
    """What each candidate makes of each condition's test reviews; the columns are those of CONDITIONS.

    Args:
        scores: score files of all runs; of candidates with several, the means.
        shown: those whose rows are wanted.
        trained_on: expert -> conditions of its train reviews; experts that were not chosen by condition are left out.
        metric: which; the calibration error, which slices do not have, makes an empty table.
    """
    first = [s for s in scores if s.run is None]
    members = {s.candidate: s.members for s in first}

    def learned(name: str) -> set[str] | None:
        """Conditions of all the trainings beneath a candidate; none where one was not chosen by condition."""
        if not members.get(name):
            return set(trained_on[name]) if name in trained_on else None
        parts = [learned(m) for m in members[name]]
        return None if None in parts else {c for part in parts for c in part or ()}

    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for s in scores:
        for part in (p for p in s.slices if p["column"] == "condition" and p["scores"].get(metric)):
            found.setdefault((s.candidate, part["slice"]), []).append(part["scores"][metric])
    rows: list[dict[str, Any]] = []
    for s in (s for s in first if s.candidate in shown):
        conditions = learned(s.candidate)
        known = "all" if conditions is None else ", ".join(sorted(conditions))
        rows += [
            {"task": s.task, "candidate": s.candidate, "kind": s.kind, "trained_on": known,
             "condition": part["slice"], "reviews": part["reviews"], "metric": metric, **_mean(found[s.candidate, part["slice"]])}
            for part in s.slices
            if part["column"] == "condition" and part["scores"].get(metric)
        ]  # fmt: skip
    base = {(r["task"], r["condition"]): r["value"] for r in rows if r["kind"] == "base"}
    own = {(r["task"], r["trained_on"]): r for r in rows if r["kind"] == "expert" and r["trained_on"] == r["condition"]}
    for row in rows:
        place = row["task"], row["condition"]
        lead = own[place]["value"] - base[place] if place in own and place in base else 0.0
        row["normalised"] = (row["value"] - base[place]) / lead if metrics.sign(metric) * lead > 0 else None
    return pl.DataFrame(rows, schema={name: kind for name, (kind, _) in CONDITIONS.items()})


def _mean(runs: list[dict[str, float]]) -> dict[str, float]:
    """Value, low and high of several runs' mean; their intervals are taken as if texts moved all runs alike."""
    spread, low, high = replicates.interval(*(np.array([one[key] for one in runs]) for key in ("value", "low", "high")))
    return {"value": spread.value, "low": low, "high": high}
