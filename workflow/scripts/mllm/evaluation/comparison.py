"""Compare candidates in pairs: is the merge better than another, or only luckier?

All pairs share the test reviews and the resamples of their texts. *Claims* are the comparisons that an experiment is about: each
method's winner against the best expert, the best blend and every reference. All other pairs are exploration. Each task has two
families of claims, each with a family-wise error of 5 %: the primary claim alone (the chosen merge against the large reference),
and all others, corrected together. The false discovery rate is controlled over the whole table.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from mllm.core.arrays import Array
from mllm.evaluation import claims, leaderboard, replicates, significance
from mllm.evaluation.comparison_table import ANSWERS, SCHEMA
from mllm.evaluation.pairs_of_runs import TaskPairs
from mllm.evaluation.rivals import families, rivals
from mllm.evaluation.shared_draws import Pairs

FEWEST = 20  # test texts of a class: with 10, a nominal 5 % test of macro-F1 errs in 11 % of samples


def compare(
    frame: pl.DataFrame, runs: pl.DataFrame, pairs: dict[str, Pairs], truth: dict[str, tuple[Array, Array]], metric: str, margin: float
) -> pl.DataFrame:  # fmt: skip
    """Compare every merge and blend with the best expert, the best blend, every reference and the base, on test, run by run.

    Args:
        frame: the leaderboard.
        runs: the table of runs.
        pairs: task -> draws and labels.
        truth: task -> class and text of each test review.
        metric: what is compared.
        margin: how much worse still counts as not worse.

    Returns:
        One row per pair, claims first; the columns are those of comparison_table.SCHEMA.
    """
    found = sorted(rivals(frame), key=lambda pair: not pair[2])
    costs = {str(task): leaderboard.price(part) for (task,), part in frame.group_by("task")}
    known = {task: TaskPairs(runs.filter(pl.col("task") == task), pairs[task], *truth[task], metric) for task in costs}
    rows = []
    for (candidate, other, claim), family in zip(found, families(frame, found), strict=True):
        one, cost = known[candidate["task"]], costs[candidate["task"]]
        rows.append({
            "task": candidate["task"], "candidate": candidate["candidate"], "against": other["candidate"],
            "kind": other["kind"], "claim": claim, "family": family, "metric": metric,
            **one.compared(candidate["candidate"], other["candidate"], claim, margin),
            "cost_ratio": candidate[cost] / other[cost] if cost and other[cost] else None,
        })  # fmt: skip
    return corrected(rows, SCHEMA)


LATER = (
    "holds",
    "answer",
    "p_holm",
    "p_bh",
    "p_not_worse_holm",
    "p_worse_holm",
    "p_equivalent_holm",
    "p_mcnemar_holm",
    "detectable_holm",
)
BESIDE = (
    "p_better",
    "p_behind",
    "p_not_better",
    "texts",
    "training",
)  # needed for corrections; no columns of the table


def corrected(rows: list[dict[str, Any]], schema: Mapping[str, Any]) -> pl.DataFrame:
    """Make the table of comparisons with all that depends on several rows: corrected p-values, what holds, the answer.

    Args:
        rows: with the columns of ``paired.Difference.columns``, ``family`` (none: no claim), and others of the schema.
        schema: column -> type of the table. Claims of one family (and of one task, if it is a column) are corrected together.
    """
    types = {**schema, **dict.fromkeys(BESIDE, pl.Float64)}
    table = pl.DataFrame(rows, schema={k: v for k, v in types.items() if k not in LATER})
    table = table.with_columns(p_bh=pl.Series(significance.benjamini_hochberg(table["p"].to_numpy()), dtype=pl.Float64))
    by = [name for name in ("task", "family") if name in schema]
    parts = [_family(part) if group[-1] else part for group, part in table.group_by(by, maintain_order=True)]
    done = pl.concat(parts, how="diagonal") if parts else table
    return done.select(
        pl.col(name).cast(kind) if name in done.columns else pl.lit(None, kind).alias(name)
        for name, kind in schema.items()
    )


def _family(part: pl.DataFrame) -> pl.DataFrame:
    """Correct the claims of one family."""
    p = {name: part[f"p_{name}"].to_numpy() for name in ("not_worse", "better", "behind", "worse", "not_better")}
    not_worse, better = claims.adjusted(p["not_worse"], p["better"])
    behind, worse = claims.adjusted(p["behind"], p["worse"])
    not_better, _ = claims.adjusted(p["not_better"], p["worse"])
    holds = [claims.strongest(*each) for each in zip(better, not_worse, behind, worse, strict=True)]
    variances = part.select("texts", "training", "runs").rows()
    spreads = [replicates.Spread(0.0, texts, training, runs, None) for texts, training, runs in variances]
    detectable = [spread.detectable(claims.LEVEL / part.height) for spread in spreads]
    part = part.with_columns(
        holds=pl.Series(holds, dtype=pl.String),
        answer=pl.Series([ANSWERS[statement] for statement in holds], dtype=pl.String),
        p_holm=pl.Series(np.minimum(1, 2 * np.minimum(better, behind))),
        p_not_worse_holm=pl.Series(not_worse), p_worse_holm=pl.Series(worse),
        p_equivalent_holm=pl.Series(np.maximum(not_worse, not_better)),
        detectable_holm=pl.Series(detectable),
    )  # fmt: skip
    if "p_mcnemar" not in part.columns:
        return part
    return part.with_columns(p_mcnemar_holm=pl.Series(significance.holm(part["p_mcnemar"].to_numpy())))


def without_equivalence(table: pl.DataFrame) -> pl.DataFrame:
    """Drop the claims of equivalence, for experiments that do not ask for them."""
    return table.with_columns(p_equivalent_holm=pl.lit(None, pl.Float64))
