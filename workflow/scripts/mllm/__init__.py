"""Merge of Large Language Models: an experiment's results, from a notebook or a script.

``mllm.open("results/demo")`` gives leaderboard, comparisons and predictions as polars frames, the verdict as text, and
loaded models. The rooms of the package are in docs/architecture.md.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mllm.interface.results import Results


def open(folder: str | Path) -> "Results":
    """Open the results of one experiment.

    Args:
        folder: ``results/<name>``, as a run made it.

    Raises:
        Failure: there is no leaderboard in the folder.
    """
    from mllm.interface.results import Results

    return Results(Path(folder))
