"""Read an experiment that the rules have checked: jobs depend on its values, and on no check."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mllm.experiment import revision_locks
from mllm.experiment.schema import Experiment
from mllm.experiment.yaml_files import ExperimentError, combine


def read(*paths: str | Path, override: dict[str, Any] | None = None) -> Experiment:
    """Read one experiment: its file, the values that later files and ``override`` replace, and its lock.

    Raises:
        ExperimentError: it has invalid values; ``snakemake -n`` explains them.
    """
    try:
        experiment = Experiment.model_validate(combine(paths, override or {}))
    except ValidationError as error:
        problems = [f"a job found {error.error_count()} invalid values. Fix: run snakemake -n, which lists them"]
        raise ExperimentError(", ".join(map(str, paths)), problems) from None
    return revision_locks.pin(experiment, paths[0])
