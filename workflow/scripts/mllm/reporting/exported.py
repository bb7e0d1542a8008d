"""Check an exported model folder against the recorded predictions, and describe it."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mllm.core.counting import counted
from mllm.core.errors import Failure
from mllm.core.files import read_json
from mllm.data import labelled
from mllm.evaluation.comparison_table import Comparison
from mllm.models import cards, checkpoint_files, loading, tokens
from mllm.prediction import asking, prediction_tables, run_model
from mllm.reporting import model_card

REVIEWS = 500  # reviews whose predictions are compared: enough to see any difference, seconds on a CPU
# Largest difference of a probability. Sums differ between GPU and CPU and, in bfloat16, between batches.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.03}


@dataclass(frozen=True)
class Exported:
    """Hold a winner's row of the leaderboard, and its comparisons."""

    row: dict[str, Any]
    rivals: list[Comparison]


def facts_of(
    folder: Path, winner: Exported, recorded: cards.Merge, said: tuple[str, str], arguments: argparse.Namespace
) -> model_card.Facts:
    """Write label names into a model folder, check its predictions, and gather its card's facts.

    Args:
        folder: of the model.
        winner: the exported run's row of the leaderboard, and its candidate's comparisons.
        recorded: the merge's card.
        said: its recipe's text, and a sentence on which of several runs it is.
        arguments: of the script.
    """
    results, row = arguments.results, winner.row
    base = results / "models" / arguments.bases[row["task"]]
    labels = labelled.worded_names(results / "data", arguments.experiment["tasks"][row["task"]])
    checkpoint_files.name_labels(folder, labels)
    return model_card.Facts(
        experiment=arguments.experiment, task=row["task"], labels=labels, row=row, rivals=winner.rivals, merge=recorded,
        recipe=said[0], among=said[1],
        members={m: cards.read(results / "models" / m) for m in recorded.recipe["members"]},
        base=cards.Base.read(base / cards.FILE), split=read_json(results / "data/split.json"),
        counts=labelled.task_facts(results / "data", row["task"])["counts"], check=check(folder, row, arguments),
    )  # fmt: skip


def whole_run(run: str, task: str) -> str:
    """Return the run of a model over several tasks from the run of its part: ``<whole>.<task>@2`` is of ``<whole>@2``."""
    part, at, replicate = run.partition("@")
    return part.removesuffix(f".{task}") + at + replicate


def part_run(whole: str, task: str) -> str:
    """Return the run of its part in one task from the run of a model over several tasks."""
    name, at, replicate = whole.partition("@")
    return f"{name}.{task}{at}{replicate}"


def check(folder: Path, row: dict[str, Any], arguments: argparse.Namespace) -> str:
    """Load the folder as its users will, compare its predictions with the recorded ones, and return the finding in words.

    The model predicts in the recorded number format, with the recorded predictions' examples in its prompt.
    """
    rows = labelled.labelled(arguments.results / "data", ("valid", "test"), row["task"]).sort("review_id")
    rows = rows.sample(min(REVIEWS, rows.height), seed=arguments.experiment["seed"])
    recorded = pl.read_parquet(arguments.results / f"predictions/{row['candidate']}.parquet")
    expected = rows.join(recorded, on=["review_id", "split"], how="inner", maintain_order="left")
    card = cards.read(folder).asked()
    names = labelled.worded_names(arguments.results / "data", arguments.experiment["tasks"][row["task"]])
    dtype = row["dtype"]
    model, tokenizer = loading.load_model(folder, card["family"], dtype=dtype)
    scorer, _ = asking.scorer_of(
        card, model, tokenizer, names, arguments.results / "data", arguments.experiment["seed"]
    )
    found = np.exp(run_model.log_probabilities(scorer, tokens.encode(scorer, rows["review"].to_list())))
    difference = float(
        np.abs(found - np.exp(expected.select(prediction_tables.logp_columns(expected)).to_numpy())).max()
    )
    if expected.height != rows.height or difference > TOLERANCE[dtype]:
        raise Failure(
            f"{row['candidate']}: the exported folder's predictions differ from the recorded ones (found a difference of {difference:.2g}"
            f" between probabilities, expected at most {TOLERANCE[dtype]:g} in {dtype}). Fix: delete its predictions and rerun the experiment"
        )
    return (
        f"Loaded back from this folder, the model reproduced the recorded probabilities of {counted(rows.height, 'review')} drawn from"
        f" validation and test, in {dtype} (largest difference {difference:.1e})."
    )
