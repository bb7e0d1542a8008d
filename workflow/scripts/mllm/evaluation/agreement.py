"""Relate members by their predictions: which of them err on the same texts, and which know which part of the reviews."""

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
PARTS = {
    "task": (pl.String, "task"),
    "candidate": (pl.String, "base, expert, merge that won its method, blend or reference"),
    "kind": (pl.String, "of the candidate"),
    "column": (pl.String, "that experts were chosen by; condition where none was"),
    "trained_on": (pl.String, "values of the column that it, or its members, learned from; all: not chosen by this column"),
    "part": (pl.String, "value of the column in the test reviews"),
    "reviews": (pl.Int64, "number of test reviews"),
    "metric": (pl.String, "compare.metric"),
    "value": (pl.Float64, "on these reviews"),
    "low": (pl.Float64, "95 % interval"),
    "high": (pl.Float64, ""),
    "normalised": (pl.Float64, "(value - base) / (this part's own expert - base), empty where it has no expert of its own"),
}  # fmt: skip


def agreement(
    members: dict[str, list[str]], pairs: dict[str, Pairs], truth: dict[str, tuple[Array, Array]]
) -> pl.DataFrame:
    """Compare each two of a task's base and experts on test; the columns are those of AGREEMENT.

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


def by_part(
    scores: list[Scores], shown: list[str], trained_on: dict[str, dict[str, list[str]]], metric: str
) -> pl.DataFrame:
    """Score each candidate on each part of the test reviews that experts were chosen by; the columns are those of PARTS.

    Args:
        scores: score files of all runs; a candidate with several runs gets their means.
        shown: candidates that get rows.
        trained_on: column -> expert -> values of it in its train reviews; experts not chosen by the column are left out.
        metric: which; slices have no calibration error, so it gives an empty table.
    """
    rows: list[dict[str, Any]] = []
    for column, experts in trained_on.items():
        rows += _of_column(scores, shown, column, experts, metric)
    return pl.DataFrame(rows, schema={name: kind for name, (kind, _) in PARTS.items()})


def _of_column(
    scores: list[Scores], shown: list[str], column: str, trained_on: dict[str, list[str]], metric: str
) -> list[dict[str, Any]]:
    """Make the rows of :func:`by_part` for one column."""
    first = [s for s in scores if s.run is None]
    members = {s.candidate: s.members for s in first}
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for s in scores:
        for part in _parts(s, column, metric):
            found.setdefault((s.candidate, part["slice"]), []).append(part["scores"][metric])
    rows = []
    for s in (s for s in first if s.candidate in shown):
        values = _learned(s.candidate, trained_on, members)
        known = "all" if values is None else ", ".join(sorted(values))
        rows += [
            {"task": s.task, "candidate": s.candidate, "kind": s.kind, "column": column, "trained_on": known, "part": part["slice"],
             "reviews": part["reviews"], "metric": metric, **_mean(found[s.candidate, part["slice"]])}
            for part in _parts(s, column, metric)
        ]  # fmt: skip
    base = {(r["task"], r["part"]): r["value"] for r in rows if r["kind"] == "base"}
    own = {(r["task"], r["part"]): r for r in rows if r["kind"] == "expert" and r["trained_on"] == r["part"]}
    for row in rows:
        place = row["task"], row["part"]
        lead = own[place]["value"] - base[place] if place in own and place in base else 0.0
        row["normalised"] = (row["value"] - base[place]) / lead if metrics.sign(metric) * lead > 0 else None
    return rows


def _parts(scores: Scores, column: str, metric: str) -> list[dict[str, Any]]:
    return [part for part in scores.slices if part["column"] == column and part["scores"].get(metric)]


def _learned(name: str, trained_on: dict[str, list[str]], members: dict[str, list[str]]) -> set[str] | None:
    """Return the column's values that all trainings beneath a candidate saw; None where one was not chosen by the column."""
    if not members.get(name):
        return set(trained_on[name]) if name in trained_on else None
    parts = [_learned(m, trained_on, members) for m in members[name]]
    return None if None in parts else {value for part in parts for value in part or ()}


def _mean(runs: list[dict[str, float]]) -> dict[str, float]:
    """Average several runs: value, low and high. The interval assumes that texts move all runs alike."""
    spread, low, high = replicates.interval(*(np.array([one[key] for one in runs]) for key in ("value", "low", "high")))
    return {"value": spread.value, "low": low, "high": high}
