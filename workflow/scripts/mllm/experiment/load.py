"""Load an experiment: its file, overrides, checks and locked revisions."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from mllm.experiment import revision_locks
from mllm.experiment.schema import Experiment
from mllm.experiment.yaml_files import ExperimentError, combine


def parse(raw: dict[str, Any], source: str = "experiment") -> Experiment:
    """Check plain values against the schema and against each other.

    Raises:
        ExperimentError: the values have errors; it lists all of them.
    """
    from mllm.experiment.checks import columns, cross, shape

    raw, problems = columns.in_our_direction(raw)
    experiment = None
    try:
        experiment = Experiment.model_validate(raw)
    except ValidationError as error:
        problems += shape.shape_problems(error, raw, Experiment)
    try:
        problems += [p for p in cross.cross_problems(raw) if p not in problems]
    except (AttributeError, KeyError, TypeError, ValueError):
        if not problems:  # else a value's wrong type broke a check, and is reported already
            raise
    if problems or experiment is None:
        raise ExperimentError(source, problems)
    return experiment


def load(*paths: str | Path, override: dict[str, Any] | None = None) -> Experiment:
    """Read and check one experiment: its file, the values that later files and ``override`` replace, and its lock."""
    return revision_locks.pin(parse(combine(paths, override or {}), ", ".join(map(str, paths))), paths[0])


def json_schema(model: type[BaseModel] = Experiment) -> dict[str, Any]:
    """Return the JSON schema with which editors complete and check an experiment file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema(by_alias=True)}
