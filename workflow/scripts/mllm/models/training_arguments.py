"""Add the arguments that all training scripts share."""

import argparse
import json
import os
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    """Add the hyper-parameters, checkpoints of an unfinished training, finished ones to take over, threads and GPUs."""
    parser.add_argument("--hyper", type=json.loads, required=True, help="hyper-parameters, as JSON")
    parser.add_argument(
        "--checkpoints", type=Path, required=True, help="folder for unfinished training; survives the job"
    )
    parser.add_argument(
        "--checkpoint-seconds",
        type=float,
        default=float(os.environ.get("MLLM_CHECKPOINT_SECONDS", 300)),
        help="time between checkpoints (default: $MLLM_CHECKPOINT_SECONDS, or 300)",
    )
    parser.add_argument(
        "--same", type=Path, nargs="*", default=[], help="models to copy one of, if the same training made it"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=1, help="GPUs to train on; without GPUs, processes")
