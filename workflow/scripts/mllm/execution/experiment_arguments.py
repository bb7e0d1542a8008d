"""Check the experiment files of Snakemake's command line before Snakemake reads them."""

import sys
from typing import Any

from mllm.core.errors import Failure
from mllm.execution import snakemake_patches
from mllm.experiment.yaml_files import read_yaml


def explain() -> None:
    """Stop Snakemake with a message, instead of its traceback, if an experiment file is missing or no YAML."""
    snakemake_patches.before_experiment_files(check)


def check(path: Any) -> None:
    try:
        read_yaml(path)
    except Failure as failure:
        sys.exit(f"error: {failure}")
