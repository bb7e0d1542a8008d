"""Experiment files as Snakemake's command line names them: what is wrong with one is said before Snakemake reads it."""

import sys
from typing import Any

from mllm.core.errors import Failure
from mllm.execution import snakemake_patches
from mllm.experiment.yaml_files import read_yaml


def explain() -> None:
    """Let Snakemake stop with our message where an experiment file is missing or no YAML; its own is a traceback."""
    snakemake_patches.before_experiment_files(check)


def check(path: Any) -> None:
    try:
        read_yaml(path)
    except Failure as failure:
        sys.exit(f"error: {failure}")
