"""Ctrl-C and SIGTERM: a run ends in order, in one line, and the same command continues it."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from mllm.execution import snakemake_patches

MESSAGE = "Interrupted; give the same command to continue. Finished results are kept."
# A shell waits for its command, whose end counts; a solver ends by itself.
SPARED = ("bash", "sh", "cbc", "glpsol", "highs")
_signals = 0


def stopped() -> bool:
    """Whether this run was told to stop."""
    return _signals > 0


def about_to_stop() -> bool:
    """Whether the signal that a job died of reaches this run within a second: a terminal's reaches all processes, in any order."""
    end = time.monotonic() + 1
    while not stopped() and time.monotonic() < end:
        time.sleep(0.02)
    return stopped()


def before_jobs() -> None:
    """Let a signal that comes before any job end this process in one line."""

    def handle(*_: Any) -> None:
        sys.exit(MESSAGE)

    with contextlib.suppress(ValueError):  # not in the main thread: Snakemake is used as a library
        signal.signal(signal.SIGINT, handle)
        signal.signal(signal.SIGTERM, handle)


def while_jobs_run(workflow: Any) -> None:
    """Let a signal end a local run's jobs; on a cluster, Snakemake's executor cancels what it submitted."""
    if not workflow.local_exec or not snakemake_patches.stop_on_signals(workflow, stop):
        signal.signal(signal.SIGINT, signal.default_int_handler)


def stop(order: Callable[[], None]) -> None:
    """Start nothing more and end what runs: with SIGTERM, on which a training keeps a checkpoint; from the second signal, SIGKILL.

    Args:
        order: tells the scheduler to stop.
    """
    global _signals
    _signals += 1
    if _signals > 1:
        return
    print("Stopping …", file=sys.stderr)
    order()
    told: set[tuple[int, int]] = set()
    while True:  # a job may just be starting; this thread ends with its process
        number = signal.SIGTERM if _signals == 1 else signal.SIGKILL
        for pid in jobs():
            if (pid, number) not in told:
                told.add((pid, number))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        time.sleep(0.1)


def jobs() -> list[int]:
    """Processes that this one started, directly or not."""
    import psutil

    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name() not in SPARED:
                found.append(process.pid)
    return found
