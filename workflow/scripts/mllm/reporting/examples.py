"""Find test reviews on which only the best merge is right, or only the best merge is wrong."""

from pathlib import Path
from typing import Any

import polars as pl

from mllm.core.counting import counted
from mllm.data import labelled
from mllm.evaluation.shared_draws import Pairs
from mllm.reporting.details import short

EXAMPLES = 5


def disagreements(results: Path, task: str, board: pl.DataFrame, names: list[str]) -> list[dict[str, Any]]:
    """Return reviews where only the merge is right, and where only it is wrong; empty if reviews or members are unknown.

    Args:
        results: the experiment's folder.
        task: which.
        board: its leaderboard, best validation score first.
        names: of its classes.
    """
    best = board.filter(pl.col("kind") == "merge").head(1).to_dicts()
    reviews = results / "data/test.parquet"
    if not best or "review" not in pl.read_parquet_schema(reviews):
        return []
    here = set(board["candidate"])  # other tasks' members of a merge over several tasks predict other labels
    members = [name for name in best[0]["members"].split() if name in here]
    if not members:  # predictions made elsewhere name no members
        return []
    rows = labelled.labelled(results / "data", ("test",), task).with_row_index("place")
    rows = rows.unique("group", keep="first", maintain_order=True)
    labels = Pairs(results / "scores", task).labels([best[0]["candidate"], *members])
    mine, *theirs = labels[:, rows["place"].to_numpy()].tolist()
    truth = rows["label"].to_list()
    parts = {
        "The merge is right, every member is wrong": lambda i: mine[i] == truth[i] and all(t[i] != truth[i] for t in theirs),
        "The merge is wrong, every member is right": lambda i: mine[i] != truth[i] and all(t[i] == truth[i] for t in theirs),
    }  # fmt: skip
    found = []
    for title, wanted in parts.items():
        chosen = [i for i in range(rows.height) if wanted(i)]
        shown = [
            {"review": short(rows["review"][i], 400), "truth": names[truth[i]],
             "said": f"the merge: {names[mine[i]]}; members: " + ", ".join(names[t[i]] for t in theirs)}
            for i in chosen[:EXAMPLES]
        ]  # fmt: skip
        found.append({"title": f"{title}: {len(chosen):,} of {counted(rows.height, 'text')}", "rows": shown})
    return found
