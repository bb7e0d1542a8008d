"""Reading an experiment that the rules have checked: jobs depend on what it says, and on no check."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mllm.experiment import revision_locks
from mllm.experiment.schema import Experiment
from mllm.experiment.yaml_files import ExperimentError, combine


def read(*paths: str | Path, override: dict[str, Any] | None = None) -> Experiment:
    """Read one experiment: its file, what further files and ``override`` replace in it, its lock.

    Raises:
        ExperimentError: it is no experiment at all; ``snakemake -n`` says in words what is wrong.
    """
    try:
        experiment = Experiment.model_validate(combine(paths, override or {}))
    except ValidationError as error:
        problems = [
            f"{error.error_count()} values do not fit (found by a job). Fix: run snakemake -n, which lists them"
        ]
        raise ExperimentError(", ".join(map(str, paths)), problems) from None
    return revision_locks.pin(experiment, paths[0])
