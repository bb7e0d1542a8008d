"""Choose the rivals of each merge and blend, and which of these comparisons are claims."""

from typing import Any

import polars as pl

from mllm.evaluation import leaderboard


def rivals(frame: pl.DataFrame) -> list[tuple[dict[str, Any], dict[str, Any], bool]]:
    """Return (candidate, other, whether it is a claim), task by task, in the leaderboard's order.

    Merges over several tasks have claims over all of their tasks (see ``over_tasks``); in each single task they are exploration.

    Args:
        frame: the leaderboard, best validation score first.
    """
    found = []
    for _, part in frame.group_by("task", maintain_order=True):
        rows = part.to_dicts()
        own = [r for r in rows if not r["whole"]]
        best = {kind: next((r for r in own if r["kind"] == kind), None) for kind in ("expert", "blend", "base")}
        others = [best["expert"], best["blend"], *(r for r in rows if r["kind"] == "reference"), best["base"]]
        for candidate in (r for r in rows if r["kind"] in ("merge", "blend")):
            found += [
                (candidate, other, candidate["winner"] and not candidate["whole"] and other["kind"] != "base")
                for other in others
                if other and other is not candidate
            ]
    return found


def own_winners(part: pl.DataFrame) -> pl.DataFrame:
    """Return the winners among a task's own merges, the best on validation first."""
    return part.filter("winner", pl.col("whole").is_null())


def primary(part: pl.DataFrame, rivals: list[dict[str, Any]]) -> str | None:
    """Return the primary claim's rival: the most expensive reference above the merge's cost, else the best expert or first rival.

    Args:
        part: a task's rows of the leaderboard, best validation score first.
        rivals: of the chosen merge, rows of the same table.
    """
    chosen, cost = own_winners(part).head(1).to_dicts(), leaderboard.price(part)
    if not chosen or not rivals:
        return None
    references = [r for r in rivals if r["kind"] == "reference" and r["method"] != "router"]
    larger = [r for r in references if cost and r[cost] > chosen[0][cost]]
    if cost and larger:
        return str(max(larger, key=lambda r: r[cost])["candidate"])
    return str(next((r for r in rivals if r["kind"] == "expert"), rivals[0])["candidate"])


def families(frame: pl.DataFrame, found: list[tuple[dict[str, Any], dict[str, Any], bool]]) -> list[str | None]:
    """Return primary, secondary or None for each pair of :func:`rivals`."""
    wanted: dict[Any, tuple[str, ...]] = {}
    for (task,), part in frame.group_by("task"):
        chosen = own_winners(part).head(1)["candidate"].to_list()
        mine = [other for one, other, claim in found if claim and [one["candidate"]] == chosen]
        wanted[task] = (*chosen, primary(part, mine) or "")
    return [
        None
        if not claim
        else "primary"
        if (one["candidate"], other["candidate"]) == wanted[one["task"]]
        else "secondary"
        for one, other, claim in found
    ]
