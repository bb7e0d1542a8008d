"""Paired comparisons: is the merge better than that, or only luckier?

Everything is compared on the same test reviews and the same resamples of their texts. *Claims* are the comparisons that an
experiment is about: each method's winner against the best expert, the best blend and every reference. All others are
exploration. Claims are corrected among themselves (Holm), the whole table for false discoveries (Benjamini and Hochberg).
"""

from typing import Any

import numpy as np
import polars as pl

from mllm.core.arrays import Array
from mllm.evaluation import leaderboard, metrics, significance
from mllm.evaluation.shared_draws import Pairs

LEVEL = 0.05
COLUMNS: dict[str, tuple[Any, str]] = {
    "task": (pl.String, "task"),
    "candidate": (pl.String, "a merge or a blend"),
    "against": (pl.String, "what it is compared with"),
    "kind": (pl.String, "of what it is compared with"),
    "claim": (pl.Boolean, "one of the comparisons that the experiment is about"),
    "metric": (pl.String, "compare.metric"),
    "difference": (pl.Float64, "on test; positive: the candidate is better, also where smaller values are"),
    "low": (pl.Float64, "95 % interval, paired bootstrap over texts"),
    "high": (pl.Float64, ""),
    "verdict": (pl.String, "what the interval says: better, no worse (within the margin), worse, undecided"),
    "stands": (pl.Boolean, "claims: whether the verdict holds after Holm's correction; empty where undecided"),
    "p": (pl.Float64, "of no difference, two-sided, by the bootstrap"),
    "p_holm": (pl.Float64, "the same among the claims"),
    "p_bh": (pl.Float64, "the same over the whole table, false discovery rate"),
    "p_not_worse": (pl.Float64, "of being worse by the margin or more, one-sided"),
    "p_not_worse_holm": (pl.Float64, "the same among the claims"),
    "detectable": (pl.Float64, "the smallest difference found with a probability of 80 %"),
    "calibrated_difference": (pl.Float64, "the difference once both are calibrated on validation"),
    "calibrated_low": (pl.Float64, "95 % interval"),
    "calibrated_high": (pl.Float64, ""),
    "accuracy_difference": (pl.Float64, "shares of texts labelled rightly"),
    "only_candidate_right": (pl.Int64, "texts that the candidate alone labels rightly (of a text, its first review)"),
    "only_other_right": (pl.Int64, "texts that the other alone labels rightly"),
    "p_mcnemar": (pl.Float64, "McNemar's test of accuracy, mid-p"),
    "p_mcnemar_exact": (pl.Float64, "the same, exact"),
    "p_mcnemar_holm": (pl.Float64, "the mid-p among the claims"),
    "cost_ratio": (pl.Float64, "the candidate's cost over the other's: floating-point operations, or else parameters"),
}
SCHEMA = {name: kind for name, (kind, _) in COLUMNS.items()}


def rivals(frame: pl.DataFrame) -> list[tuple[dict[str, Any], dict[str, Any], bool]]:
    """(candidate, other, whether it is a claim), task by task, in the leaderboard's order.

    Args:
        frame: the leaderboard, best validation score first.
    """
    found = []
    for _, part in frame.group_by("task", maintain_order=True):
        rows = part.to_dicts()
        best = {kind: next((r for r in rows if r["kind"] == kind), None) for kind in ("expert", "blend", "base")}
        others = [best["expert"], best["blend"], *(r for r in rows if r["kind"] == "reference"), best["base"]]
        for candidate in (r for r in rows if r["kind"] in ("merge", "blend")):
            found += [
                (candidate, other, candidate["winner"] and other["kind"] != "base")
                for other in others
                if other and other is not candidate
            ]
    return found


def compare(
    frame: pl.DataFrame, pairs: dict[str, Pairs], truth: dict[str, tuple[Array, Array]], metric: str, margin: float
) -> pl.DataFrame:
    """Every merge and blend against the best expert, the best blend, every reference and the base, on test.

    Args:
        frame: the leaderboard.
        pairs: task -> draws and labels.
        truth: task -> class and text of each test review.
        metric: what is compared.
        margin: how much worse still counts as not worse.

    Returns:
        One row per pair, claims first; the columns are those of COLUMNS.
    """
    found = sorted(rivals(frame), key=lambda pair: not pair[2])
    costs = {str(task): leaderboard.price(part) for (task,), part in frame.group_by("task")}
    known = {task: _Known(frame, task, pairs[task], *truth[task], metric) for task in costs}
    rows = []
    for candidate, other, claim in found:
        task, names = candidate["task"], (candidate["candidate"], other["candidate"])
        one = known[task]
        difference, draws = one.difference(*names)
        low, high = np.quantile(draws, [0.025, 0.975])
        calibrated, calibrated_draws = one.difference(*names, kind="calibrated")
        discordant = significance.mcnemar(one.right(names[0]), one.right(names[1]))
        cost = costs[task]
        rows.append({
            "task": task, "candidate": names[0], "against": names[1], "kind": other["kind"], "claim": claim,
            "metric": metric, "difference": difference, "low": low, "high": high, "verdict": verdict(low, high, margin),
            "p": significance.bootstrap_p(draws), "p_not_worse": significance.not_worse_p(draws, margin),
            "detectable": significance.detectable_difference(draws), "calibrated_difference": calibrated,
            "calibrated_low": np.quantile(calibrated_draws, 0.025), "calibrated_high": np.quantile(calibrated_draws, 0.975),
            "accuracy_difference": (discordant.a_only - discordant.b_only) / len(one.right(names[0])),
            "only_candidate_right": discordant.a_only, "only_other_right": discordant.b_only,
            "p_mcnemar": discordant.p_mid, "p_mcnemar_exact": discordant.p_exact,
            "cost_ratio": candidate[cost] / other[cost] if cost and other[cost] else None,
        })  # fmt: skip
    return _corrected(pl.DataFrame(rows, schema={k: v for k, v in SCHEMA.items() if k not in LATER}))


LATER = ("stands", "p_holm", "p_bh", "p_not_worse_holm", "p_mcnemar_holm")


def _corrected(table: pl.DataFrame) -> pl.DataFrame:
    """Add what depends on all rows: corrected p-values, and whether claims stand."""
    claims = table["claim"].to_numpy()

    def holm(column: str) -> pl.Series:
        return pl.Series(significance.holm(np.where(claims, table[column].to_numpy(), np.nan))).fill_nan(None)

    done = table.with_columns(
        p_holm=holm("p"),
        p_not_worse_holm=holm("p_not_worse"),
        p_mcnemar_holm=holm("p_mcnemar"),
        p_bh=pl.Series(significance.benjamini_hochberg(table["p"].to_numpy())),
    )
    stands = (
        pl.when(~pl.col("claim") | (pl.col("verdict") == "undecided"))
        .then(None)
        .when(pl.col("verdict") == "no worse")
        .then(pl.col("p_not_worse_holm") <= LEVEL / 2)
        .otherwise(pl.col("p_holm") <= LEVEL)
    )
    return done.with_columns(stands=stands).select(
        pl.col(name).cast(kind) if name in done.columns or name == "stands" else pl.lit(None, kind).alias(name)
        for name, kind in SCHEMA.items()
    )


class _Known:
    """A task's values, draws and right labels, by candidate."""

    def __init__(self, frame: pl.DataFrame, task: str, pairs: Pairs, truth: Array, groups: Array, metric: str) -> None:
        part = frame.filter(pl.col("task") == task)
        self.names = {name: i for i, name in enumerate(part["candidate"])}
        self.sign = metrics.sign(metric)
        self.values = {
            kind: part[f"test_{prefix}{metric}"].to_numpy()
            for kind, prefix in (("raw", ""), ("calibrated", "calibrated_"))
        }
        self.draws = {kind: pairs.draws(list(self.names), metric, kind=kind) for kind in self.values}
        _, first = np.unique(groups, return_index=True)  # copies of a text are no independent evidence
        self.is_right = pairs.labels(list(self.names))[:, first] == truth[first]

    def difference(self, candidate: str, other: str, kind: str = "raw") -> tuple[float, Array]:
        """Of two candidates, and of them on each resample; positive where the first is better."""
        a, b = self.names[candidate], self.names[other]
        values, draws = self.values[kind], self.draws[kind]
        return self.sign * float(values[a] - values[b]), self.sign * (draws[a] - draws[b])

    def right(self, candidate: str) -> Array:
        return np.asarray(self.is_right[self.names[candidate]])


def verdict(low: float, high: float, margin: float) -> str:
    """What a 95 % interval of a difference allows to say."""
    if low > 0:
        return "better"
    if high < -margin:
        return "worse"
    return "no worse" if low > -margin else "undecided"


# ── How honest the choice was ──

SELECTION = {
    "task": (pl.String, "task"),
    "method": (pl.String, "merge method; all: the best of all merges"),
    "points": (pl.Int64, "recipes that were tried"),
    "winner": (pl.String, "the best on validation"),
    "metric": (pl.String, "compare.metric"),
    "valid": (pl.Float64, "the winner on validation"),
    "test": (pl.Float64, "the winner on test"),
    "optimism": (pl.Float64, "validation minus test (the other way round where smaller is better)"),
    "expected_optimism": (
        pl.Float64,
        "what choosing the best of so many equally good, as correlated points would give",
    ),
    "expected_optimism_independent": (pl.Float64, "the same, were they independent: an upper bound"),
    "seeds": (pl.Int64, "random methods: seeds tried of the winner's recipe"),
    "seed_deviation": (pl.Float64, "standard deviation over those seeds on test"),
    "sampling_error": (pl.Float64, "the winner's standard error over texts on test"),
}


def selection(frame: pl.DataFrame, pairs: dict[str, Pairs], metric: str) -> pl.DataFrame:
    """One row per task and method, and one for all methods: what was chosen, and how much of its lead is luck."""
    rows = []
    merged = frame.filter(pl.col("kind") == "merge")
    for (task,), part in merged.group_by("task", maintain_order=True):
        groups = [(str(m), rows_) for (m,), rows_ in part.group_by("method", maintain_order=True)]
        for method, points in sorted(groups, key=lambda g: g[0]) + ([("all", part)] if len(groups) > 1 else []):
            names = points["candidate"].to_list()
            valid = pairs[str(task)].draws(names, metric, "valid")
            winner = points.row(0, named=True)
            seeds = _over_seeds(winner, points, metric)
            rows.append({
                "task": task, "method": method, "points": len(names), "winner": names[0], "metric": metric,
                "valid": winner[f"valid_{metric}"], "test": winner[f"test_{metric}"],
                "optimism": metrics.sign(metric) * (winner[f"valid_{metric}"] - winner[f"test_{metric}"]),
                "expected_optimism": significance.expected_optimism(valid, not metrics.METRICS[metric].smaller_is_better),
                "expected_optimism_independent": significance.independent_optimism(float(valid.std(axis=1).mean()), len(names)),
                "seeds": len(seeds) or None, "seed_deviation": float(np.std(seeds, ddof=1)) if len(seeds) > 1 else None,
                "sampling_error": float(pairs[str(task)].draws(names[:1], metric).std()),
            })  # fmt: skip
    return pl.DataFrame(rows, schema={name: kind for name, (kind, _) in SELECTION.items()})


def _over_seeds(winner: dict[str, Any], points: pl.DataFrame, metric: str) -> list[float]:
    """Test scores of the points that differ from the winner in their seed at most; none where nothing is random."""
    if winner.get("seed") is None:
        return []
    first, last = points.columns.index("members"), points.columns.index("winner")
    same = [c for c in ("method", *points.columns[first:last]) if c != "seed"]
    alike = points.filter(pl.all_horizontal(pl.col(c).eq_missing(winner[c]) for c in same))
    return alike[f"test_{metric}"].to_list()
