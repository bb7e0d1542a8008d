"""Gather what a click on a candidate's name opens: its recipe, confusion, errors, scores by slice."""

from pathlib import Path
from typing import Any

import polars as pl

from mllm.data import labelled
from mllm.evaluation.score_files import Scores
from mllm.evaluation.shared_draws import Pairs

MOST = 300  # merges of a task with details; for all others see the tables beside the page
ERRORS, POOL = 3, 120  # texts of one candidate, and of all together
RECIPES = 1_000_000  # bytes of all recipes
SLICES = 40  # of one candidate
TEXT = 280  # characters of a review


def gather(results: Path, task: str, names: list[str], board: pl.DataFrame, metric: str) -> dict[str, Any]:
    """Gather details of a task's candidates, small enough for the page.

    Args:
        results: the experiment's folder.
        task: whose candidates.
        names: of the task's classes.
        board: the task's rows of the leaderboard that the page shows, best validation score first.
        metric: of the slices' scores.

    Returns:
        classes; texts: (review, true class); candidates: name -> recipe, confusion, errors (text, predicted class), slices.
    """
    merge = pl.col("kind") == "merge"
    board = board.filter(~merge | pl.col("winner") | (merge.cum_sum() <= MOST))
    # Winners' recipes first; a mixture's recipe holds reviews, and many of them would make the page too large.
    recipes, room = {}, RECIPES
    for name in board.sort("winner", descending=True, maintain_order=True)["candidate"]:
        file = results / f"merges/{name}/mergekit.yaml"
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        if text and len(text.encode()) <= room:
            recipes[name], room = text, room - len(text.encode())
    texts, wrong = _errors(results, task, board)
    found = {}
    for row in board.iter_rows(named=True):
        name = row["candidate"]
        scores = Scores.read(results / f"scores/{name}.json")
        slices = [
            [s["column"], s["slice"], *(round(float(s["scores"][metric][key]), 3) for key in ("value", "low", "high"))]
            for s in scores.slices
            if metric in s["scores"]
        ][:SLICES]
        found[name] = {
            "recipe": recipes.get(name, ""), "members": row["members"], "errors": wrong.get(name, []), "slices": slices,
            "confusion": [[round(v, 1) for v in line] for line in scores.confusion["test"]],
        }  # fmt: skip
    return {"classes": names, "texts": texts, "candidates": found}


def _errors(
    results: Path, task: str, board: pl.DataFrame
) -> tuple[list[tuple[str, int]], dict[str, list[tuple[int, int]]]]:
    """Return texts with their classes, and candidate -> (index of a text, predicted class) of its errors."""
    reviews = results / "data/test.parquet"
    if not reviews.exists() or "review" not in pl.read_parquet_schema(reviews):
        return [], {}
    rows = labelled.labelled(results / "data", ("test",), task).with_row_index("place")
    rows = rows.unique("group", keep="first", maintain_order=True)
    truth, places = rows["label"].to_numpy(), rows["place"].to_numpy()
    names = board["candidate"].to_list()
    labels = Pairs(results / "scores", task).labels(names)[:, places]
    pool: dict[int, int] = {}
    wrong: dict[str, list[tuple[int, int]]] = {}
    for name, predicted in zip(names, labels, strict=True):
        errors = (predicted != truth).nonzero()[0].tolist()
        # Prefer texts that the page shows already: it holds each once.
        errors = sorted(errors, key=lambda i: (i not in pool, i))
        mine = [i for i in errors if i in pool or len(pool) < POOL][:ERRORS]
        for i in mine:
            pool.setdefault(i, len(pool))
        wrong[name] = [(pool[i], int(predicted[i])) for i in mine]
    return [(short(rows["review"][i], TEXT), int(truth[i])) for i in pool], wrong


def short(text: str, most: int) -> str:
    """Return the beginning of a text, cut between words."""
    return text if len(text) <= most else text[:most].rsplit(" ", 1)[0] + " …"
