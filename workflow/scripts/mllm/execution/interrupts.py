"""Handle Ctrl-C and SIGTERM: a run stops cleanly with one line, and the same command resumes it."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from mllm.execution import snakemake_patches

MESSAGE = "Interrupted. Finished results are kept. Rerun the same command to resume."
# A shell waits for its command, whose end counts; a solver ends by itself.
SPARED = ("bash", "sh", "cbc", "glpsol", "highs")
_signals = 0


def stopped() -> bool:
    """Tell whether this run was asked to stop."""
    return _signals > 0


def about_to_stop() -> bool:
    """Tell whether the signal that killed a job reaches this run within a second: terminals signal in any order."""
    end = time.monotonic() + 1
    while not stopped() and time.monotonic() < end:
        time.sleep(0.02)
    return stopped()


def before_jobs() -> None:
    """End this process with one line on a signal that comes before any job."""

    def handle(*_: Any) -> None:
        sys.exit(MESSAGE)

    with contextlib.suppress(ValueError):  # not in the main thread: Snakemake is used as a library
        signal.signal(signal.SIGINT, handle)
        signal.signal(signal.SIGTERM, handle)


def while_jobs_run(workflow: Any) -> None:
    """Let a signal end a local run's jobs; on a cluster, Snakemake's executor cancels the submitted jobs."""
    if not workflow.local_exec or not snakemake_patches.stop_on_signals(workflow, stop):
        signal.signal(signal.SIGINT, signal.default_int_handler)


def stop(order: Callable[[], None]) -> None:
    """Start no more jobs, and end running ones with SIGTERM, so that trainings keep a checkpoint.

    A second signal sends SIGKILL.

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
    while True:  # a job may be about to start; this thread ends with its process
        number = signal.SIGTERM if _signals == 1 else signal.SIGKILL
        for pid in jobs():
            if (pid, number) not in told:
                told.add((pid, number))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        time.sleep(0.1)


def jobs() -> list[int]:
    """Return the ids of all processes that this one started, directly or indirectly."""
    import psutil

    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name() not in SPARED:
                found.append(process.pid)
    return found
