"""Paired comparisons: is the merge better than that, or only luckier?"""

from pathlib import Path
from typing import Any

import polars as pl

from mllm import scoring
from mllm.leaderboard import SMALLER_IS_BETTER
from mllm.splits import label_column
from mllm.tables import task_facts

SCHEMA = {
    "task": pl.String, "candidate": pl.String, "against": pl.String, "kind": pl.String, "metric": pl.String,
    "difference": pl.Float64, "low": pl.Float64, "high": pl.Float64, "verdict": pl.String,
}  # fmt: skip


def rivals(frame: pl.DataFrame) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each method's winner against its task's best expert on validation, and every blend and reference.

    Args:
        frame: the leaderboard, best validation score first.
    """
    pairs = []
    for _, part in frame.group_by("task", maintain_order=True):
        rows = part.to_dicts()
        winners = [r for r in rows if r["winner"]]
        experts = [r for r in rows if r["kind"] == "expert"][:1]
        others = [r for r in rows if r["kind"] in ("blend", "reference")]
        pairs += [(winner, other) for winner in winners for other in [*experts, *others]]
    return pairs


def compare(frame: pl.DataFrame, results: Path, metric: str, margin: float, seed: int) -> pl.DataFrame:
    """Differences on the test reviews, by one bootstrap that draws the same texts for both.

    Args:
        frame: the leaderboard.
        results: folder with predictions/ and data/.
        metric: what is compared.
        margin: how much worse still counts as not worse.
        seed: of the bootstrap.

    Returns:
        task, candidate, against, kind (of the other), metric, difference (positive: the candidate is better), low, high
        (95 % interval), verdict.
    """
    pairs = rivals(frame)
    sampled = {r["candidate"]: _resampled(r, results, metric, seed) for r in _distinct(pairs)}
    sign = -1.0 if metric in SMALLER_IS_BETTER else 1.0
    rows = []
    for candidate, other in pairs:
        a, b = sampled[candidate["candidate"]], sampled[other["candidate"]]
        difference = scoring.Resampled(sign * (a.value - b.value), sign * (a.draws - b.draws))
        low, high = difference.interval()
        names = {
            "task": candidate["task"],
            "candidate": candidate["candidate"],
            "against": other["candidate"],
            "kind": other["kind"],
        }
        numbers = {"metric": metric, "difference": difference.value, "low": low, "high": high}
        rows.append({**names, **numbers, "verdict": verdict(low, high, margin)})
    return pl.DataFrame(rows, schema=SCHEMA)


def verdict(low: float, high: float, margin: float) -> str:
    """What a 95 % interval of a difference allows to say."""
    if low > 0:
        return "better"
    if high < -margin:
        return "worse"
    return "no worse" if low > -margin else "undecided"


def words(comparisons: pl.DataFrame, margin: float) -> str:
    """Each task's best merge's comparisons in plain text; the others stand in the table."""
    parts = [_words(part, margin) for _, part in comparisons.group_by("task", maintain_order=True)]
    return "\n".join(parts)


def _words(comparisons: pl.DataFrame, margin: float) -> str:
    first, metric = comparisons["candidate"][0], comparisons["metric"][0]
    mine = comparisons.filter(pl.col("candidate") == first)
    width = max(len(name) for name in mine["against"])
    lines = [
        f"The best merge on validation, {first}, against others on the same test reviews ({metric}, margin {margin:g}):"
    ]
    for row in mine.iter_rows(named=True):
        interval = f"{row['difference']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"
        lines.append(f"  {row['kind']:<9}  {row['against']:<{width}}  {interval}  {row['verdict']}")
    return "\n".join(lines) + "\n"


def _distinct(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> list[dict[str, Any]]:
    return list({r["candidate"]: r for pair in pairs for r in pair}.values())


def _resampled(row: dict[str, Any], results: Path, metric: str, seed: int) -> scoring.Resampled:
    column = label_column(row["task"])
    facts = task_facts(results / "data", row["task"])
    reviews = pl.read_parquet(results / "data/test.parquet", columns=["review_id", "group", column])
    predictions = pl.read_parquet(results / f"predictions/{row['candidate']}.parquet")
    rows = scoring.align(predictions, reviews, "test", column)
    logp = scoring.log_matrix(rows, len(facts["names"]))
    truth, groups = rows["truth"].to_numpy(), rows["group"].to_numpy()
    return scoring.resample(truth, logp, groups, facts["ordered"], seed)[metric]
