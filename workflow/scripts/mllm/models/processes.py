"""Run one training on several GPUs of a node: one process each, joined by torch.distributed, found by accelerate.

On a machine without GPUs, the same processes run on the CPU, so that the tests can compare them.
"""

import argparse
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mllm.core.errors import Failure
from mllm.core.messages import start_logging


def spread(main: Callable[[argparse.Namespace], None], arguments: argparse.Namespace, number: int) -> None:
    """Run ``main`` in ``number`` connected processes; if it is one, in this process.

    Raises:
        Failure: this machine has GPUs, but too few; or a process failed, and the others are stopped.
        SystemExit: a process ended otherwise; it has logged the reason.
    """
    # Hide all other GPUs: the Trainer splits batches over all GPUs that it sees.
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(number))))
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(seen.split(",")[:number])
    if number == 1:
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):  # left by the starting program: no other process takes part
            os.environ.pop(name, None)
        main(arguments)
        return
    import torch
    from torch.multiprocessing.spawn import ProcessExitedException, start_processes

    if 0 < torch.cuda.device_count() < number:
        raise Failure(
            f"gpus: this job has too few GPUs (found {torch.cuda.device_count()}, expected {number}). Fix: lower gpus in the"
            " experiment file, or use a profile with larger nodes"
        )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # If a process fails, torch's own launcher prints a page; here only the process reports its error.
    with tempfile.TemporaryDirectory() as folder:
        try:
            started = start_processes(
                _process, (main, arguments, number, port, folder), nprocs=number, join=False, start_method="spawn"
            )
            signal.signal(signal.SIGTERM, lambda *_: [p.terminate() for p in started.processes])
            while not started.join():
                pass
        except ProcessExitedException as error:
            # The same input fails in all processes, and the first failure stops the others: one message is enough.
            for said in sorted(Path(folder).iterdir()):
                raise Failure(said.read_text()) from None
            if error.exit_code < 0:
                name = signal.Signals(-error.exit_code).name
                raise Failure(
                    f"process {error.error_index} of {number} was killed by {name}; too little memory?"
                ) from None
            sys.exit(error.exit_code or 1)


def _process(
    rank: int,
    main: Callable[[argparse.Namespace], None],
    arguments: argparse.Namespace,
    number: int,
    port: int,
    failures: str,
) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(number), LOCAL_WORLD_SIZE=str(number),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
    )  # fmt: skip
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(rank)  # before any use of CUDA: each process would make a context on the first GPU
    start_logging(f"[{rank}] ")
    try:
        main(arguments)
    except Failure as failure:
        Path(failures, f"{rank:04}").write_text(str(failure))
        sys.exit(1)


def first() -> bool:
    """Return whether this process writes the results: it is the only one, or the first of several."""
    return os.environ.get("RANK", "0") == "0"


def count() -> int:
    """Return the number of processes that share this training."""
    return int(os.environ.get("WORLD_SIZE", 1))


def together(value: Any) -> Any:
    """Return the first process's value in all processes, which wait for each other here."""
    if count() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([value])[0]
