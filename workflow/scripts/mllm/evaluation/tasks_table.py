"""Define the columns of ``tasks.csv`` and ``tasks_comparisons.csv``: name -> (type, meaning)."""

from typing import Any

import polars as pl

Columns = dict[str, tuple[Any, str]]


def columns(tasks: list[str]) -> Columns:
    """Return the columns of ``tasks.csv``, which has one row per system.

    Args:
        tasks: all tasks that some system covers, sorted.
    """
    normalised = (
        "divided by the score of the task's best expert on validation (smaller is better: the expert's divided by it)"
    )
    found: Columns = {
        "system": (pl.String, "a model over several tasks, or several used together"),
        "kind": (pl.String, "merge, expert, reference, blend or base"),
        "method": (pl.String, "of the merge, blend or reference"),
        "members": (pl.String, "of a merge"),
        "tasks": (pl.String, "the tasks that it covers"),
        "candidates": (pl.String, "its rows of the leaderboard, task by task"),
        "winner": (pl.Boolean, "the best merge of its method on validation"),
        "chosen": (pl.Boolean, "the best of all merges on validation, by compare.tasks"),
        "metric": (pl.String, "compare.metric"),
        "valid_mean_normalised": (pl.Float64, "mean over its tasks of the normalised scores on validation"),
        "valid_worst_normalised": (pl.Float64, "the lowest of them"),
    }
    for how, what in (
        ("mean", "mean over its tasks of the normalised scores on test"),
        ("worst", "the lowest of them"),
    ):
        found |= {
            f"{how}_normalised": (pl.Float64, what),
            f"{how}_normalised_low": (pl.Float64, "its 95 % interval"),
            f"{how}_normalised_high": (pl.Float64, ""),
        }
    found |= {
        "worst_task": (pl.String, "the task with the lowest score"),
        "mean_of_best": (pl.Float64, "the mean, normalised by each task's best candidate on validation instead"),
        "n_parameters": (pl.Int64, "of all its weights, shared ones once"),
    }
    for task in tasks:
        found |= {
            task: (pl.Float64, f"score on test in task {task}"),
            f"{task}_normalised": (pl.Float64, normalised),
            f"{task}_normalised_low": (pl.Float64, "its 95 % interval"),
            f"{task}_normalised_high": (pl.Float64, ""),
        }
    return found


COMPARISONS: Columns = {
    "candidate": (pl.String, "a merge over several tasks"),
    "against": (pl.String, "another system that covers its tasks"),
    "kind": (pl.String, "of the rival"),
    "tasks": (pl.String, "of the merge; all scores are over these"),
    "claim": (pl.Boolean, "of each method's winner; all others are exploration"),
    "family": (pl.String, "primary or secondary, each tested at 5 %"),
    "metric": (pl.String, "compare.metric"),
    "by": (pl.String, "compare.tasks: what the difference is of"),
    "value": (pl.Float64, "the merge's normalised score"),
    "other": (pl.Float64, "the other's"),
    "runs": (pl.Int64, "pairs of runs with seeds of their own"),
    "deviation": (pl.Float64, "standard deviation between their differences; empty with one"),
    "difference": (pl.Float64, "of normalised scores on test, positive where the merge is better"),
    "low": (pl.Float64, "95 % interval, of the joint resamples; over texts and trainings with several runs"),
    "high": (pl.Float64, ""),
    "verdict": (pl.String, "the strongest statement that holds without correction"),
    "holds": (pl.String, "claims: the strongest statement that holds after correction within the family"),
    "answer": (pl.String, "claims: may the merge replace the other? Yes, No or Not shown"),
    "p": (pl.Float64, "p-value of no difference, two-sided"),
    "p_holm": (pl.Float64, "corrected within the family"),
    "p_bh": (pl.Float64, "over the whole table, false discovery rate"),
    "p_not_worse": (
        pl.Float64,
        "of being worse by compare.margin or more, as a share of the experts' score; one-sided",
    ),
    "p_not_worse_holm": (pl.Float64, "corrected within the family"),
    "p_worse": (pl.Float64, "of being worse by no more than the margin, one-sided"),
    "p_worse_holm": (pl.Float64, "corrected within the family"),
    "p_equivalent": (pl.Float64, "of being apart by the margin or more, two one-sided tests"),
    "p_equivalent_holm": (pl.Float64, "corrected within the family; where the experiment asks for equivalence"),
    "detectable": (pl.Float64, "the smallest true difference that a test alone finds with a probability of 80 %"),
    "detectable_holm": (pl.Float64, "the same for the family's hardest place, its first claim"),
    "cost_ratio": (pl.Float64, "the merge's parameters over the other's"),
}


def schema(of: Columns) -> dict[str, Any]:
    """Return column -> type."""
    return {name: kind for name, (kind, _) in of.items()}
