"""A script's interface to the system: arguments, log, exit status, network and GPU."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from mllm.core import messages
from mllm.core.errors import Failure
from mllm.core.files import FULL


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return an argument parser with the options that every script has."""
    result = argparse.ArgumentParser(description=description, allow_abbrev=False)
    result.add_argument("--log", type=Path, help="write messages to this file instead of the terminal")
    return result


def run(main: Callable[[argparse.Namespace], None], arguments: argparse.Namespace) -> None:
    """Run a script's main function and turn its outcome into a log and an exit status.

    With ``--log``, the process's standard output and error go to that file, so that messages of libraries and crashes
    are kept. The console shows only a progress line every 30 s.
    """
    if arguments.log:
        arguments.log.parent.mkdir(parents=True, exist_ok=True)
        messages.console = os.fdopen(os.dup(2), "w", buffering=1)
        descriptor = os.open(arguments.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        messages.keep_telling(arguments.log, Path(sys.argv[0]).stem)
    messages.start_logging()
    try:
        main(arguments)
    except Failure as failure:
        sys.exit(f"error: {failure}")
    except KeyboardInterrupt:
        sys.exit("interrupted")
    except OSError as error:
        if error.errno in FULL:
            where = Path(error.filename).parent if error.filename else Path.cwd()
            sys.exit(f"error: {error.filename or where}: cannot write, the disk is full. Fix: free space in {where}")
        raise


def offline() -> None:
    """Forbid the Hugging Face libraries all network access; call it before importing them."""
    os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")


def usable_gpu(needed_mb: float = 0, gpus: int = 1) -> None:
    """Raise a ``Failure`` if the requested GPU is missing, too small, or unsupported by torch."""
    from mllm.core.compute import gpu_problem

    problem = gpu_problem(needed_mb, gpus)
    if problem:
        raise Failure(problem)
