"""Arguments that all scripts which predict with a model have in common."""

import argparse
import os
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    """Add how to compute, and where jobs leave what others or a successor need."""
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=1, help="GPUs over which the model's layers are spread")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--seed", type=int, default=17, help="of a prompt's examples")
    parser.add_argument(
        "--first-layers", type=int, default=0, help="layers that no training changed: their states are shared"
    )
    parser.add_argument("--shards", type=Path, help="folder for unfinished predictions; survives the job")
    parser.add_argument("--tokens", type=Path, help="folder where candidates that read alike share their tokens")
    parser.add_argument(
        "--checkpoint-seconds",
        type=float,
        default=float(os.environ.get("MLLM_CHECKPOINT_SECONDS", 30)),
        help="time between shards (default: $MLLM_CHECKPOINT_SECONDS, or 30)",
    )
