"""Define the arguments that all scripts share which predict with a model."""

import argparse
import os
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    """Add arguments for the computation, and for the folders that jobs share or resume from."""
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--gpus", type=int, default=1, help="GPUs over which the model's layers are spread")
    parser.add_argument(
        "--dtype", default="auto", choices=["auto", "float32", "bfloat16"],
        help="number format; auto: bfloat16 on GPUs that have it, else float32",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=17, help="seed of a prompt's examples")
    parser.add_argument(
        "--first-layers", type=int, default=0, help="number of layers that no training changed; their states are shared"
    )
    parser.add_argument("--shards", type=Path, help="folder for unfinished predictions, which outlives the job")
    parser.add_argument(
        "--tokens", type=Path, help="folder where candidates with the same tokenisation share their tokens"
    )
    parser.add_argument(
        "--checkpoint-seconds",
        type=float,
        default=float(os.environ.get("MLLM_CHECKPOINT_SECONDS", 30)),
        help="time between shards (default: $MLLM_CHECKPOINT_SECONDS, or 30)",
    )
