"""One training over several GPUs of a node: a process each, joined by torch.distributed, found by accelerate.

On a machine without GPUs the same processes run on the CPU: that is how the tests know that they agree.
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
    """Run ``main`` in ``number`` processes that know each other; here, where it is one.

    Raises:
        Failure: this machine has GPUs, but too few of them; or one of the processes failed, and the others are stopped.
        SystemExit: one of the processes ended otherwise; it has said why.
    """
    # More than was asked for would be used too: the Trainer splits batches over all GPUs that it sees.
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(number))))
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(seen.split(",")[:number])
    if number == 1:
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):  # left by whatever started this: nobody else is at work here
            os.environ.pop(name, None)
        main(arguments)
        return
    import torch
    from torch.multiprocessing.spawn import ProcessExitedException, start_processes

    if 0 < torch.cuda.device_count() < number:
        raise Failure(
            f"the model asks for {number} GPUs, this job has {torch.cuda.device_count()}"
            " (gpus in the experiment file, or a profile with larger nodes)"
        )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # torch's own launcher prints a page of its own where a process fails; this one leaves the word to the process.
    with tempfile.TemporaryDirectory() as folder:
        try:
            started = start_processes(
                _process, (main, arguments, number, port, folder), nprocs=number, join=False, start_method="spawn"
            )
            signal.signal(signal.SIGTERM, lambda *_: [p.terminate() for p in started.processes])
            while not started.join():
                pass
        except ProcessExitedException as error:
            # The same input fails everywhere, and whoever fails first is the end of the others: one message is enough.
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
        torch.cuda.set_device(rank)  # before anything else asks: each would make a context on the first GPU
    start_logging(f"[{rank}] ")
    try:
        main(arguments)
    except Failure as failure:
        Path(failures, f"{rank:04}").write_text(str(failure))
        sys.exit(1)


def first() -> bool:
    """Whether this process writes the results: it is alone, or the first of several."""
    return os.environ.get("RANK", "0") == "0"


def count() -> int:
    """Number of processes that work on this training together."""
    return int(os.environ.get("WORLD_SIZE", 1))


def together(value: Any) -> Any:
    """What the first process has, in all of them, which wait for each other here."""
    if count() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([value])[0]
