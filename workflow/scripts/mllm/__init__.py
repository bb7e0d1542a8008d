"""Merge of Large Language Models: read an experiment's results from a notebook or a script.

``mllm.open("results/demo")`` gives leaderboard, comparisons and predictions as polars frames, the verdict as text, and
loaded models. docs/architecture.md describes the rooms of the package.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mllm.interface.results import Results


def open(folder: str | Path) -> "Results":
    """Open the results of one experiment.

    Args:
        folder: ``results/<name>`` of a finished run.

    Raises:
        Failure: the folder has no leaderboard.
    """
    from mllm.interface.results import Results

    return Results(Path(folder))
