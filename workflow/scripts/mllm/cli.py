"""The edge between a script and the world: its log, its progress bar, its failures, its outputs."""

import argparse
import contextlib
import errno
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from pathlib import Path
from typing import Any, TextIO, TypeVar

log = logging.getLogger("mllm")
T = TypeVar("T")

FULL = (errno.ENOSPC, errno.EDQUOT)  # no room left on the disk, or in one's quota

_console: TextIO = sys.stderr


class Failure(Exception):
    """Bad input, said in one message for the user: which file, what was found, what to do."""


def parser(description: str | None) -> argparse.ArgumentParser:
    """An argument parser with the options that every script has."""
    result = argparse.ArgumentParser(description=description, allow_abbrev=False)
    result.add_argument("--log", type=Path, help="write messages to this file instead of the terminal")
    return result


def run(main: Callable[[argparse.Namespace], None], arguments: argparse.Namespace) -> None:
    """Run a script's main function and turn its outcome into a log and an exit status.

    With ``--log`` the process's own standard output and error go to that file, so that what
    libraries and crashes print is kept; only progress bars still reach the terminal.
    """
    global _console
    if arguments.log:
        arguments.log.parent.mkdir(parents=True, exist_ok=True)
        _console = os.fdopen(os.dup(2), "w", buffering=1)
        descriptor = os.open(arguments.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
    start_logging()
    try:
        main(arguments)
    except Failure as failure:
        sys.exit(f"error: {failure}")
    except KeyboardInterrupt:
        sys.exit("interrupted")
    except OSError as error:
        if error.errno in FULL:
            where = Path(error.filename).parent if error.filename else Path.cwd()
            sys.exit(f"error: the disk is full: cannot write {error.filename or ''} (free some space in {where})")
        raise


def start_logging(prefix: str = "") -> None:
    """Lines with the time of day; ``prefix`` tells processes of one job apart."""
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {prefix}%(message)s", datefmt="%H:%M:%S")
    for chatty in ("httpx", "httpx2", "httpcore", "httpcore2", "urllib3", "filelock"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def offline() -> None:
    """Forbid the Hugging Face libraries any network access; to be called before they are imported."""
    os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")


def threads(number: int) -> None:
    """Fix the number of compute threads: sums are then made in the same order on every machine."""
    import torch

    torch.set_num_threads(number)
    with contextlib.suppress(RuntimeError):  # may be set once only
        torch.set_num_interop_threads(1)


def one_thread() -> None:
    """The same for numpy's matrix products, without torch; to be called before numpy is imported."""
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")


def usable_gpu(needed_mb: float = 0, gpus: int = 1) -> None:
    """Stop in words where the GPU that was asked for is not there, too small, or one that torch has no code for."""
    from mllm.machine import gpu_problem

    problem = gpu_problem(needed_mb, gpus)
    if problem:
        raise Failure(problem)


def progress(items: Iterable[T], what: str, total: int | None = None, unit: str = "it") -> Iterator[T]:
    """Iterate with a bar on a terminal and a plain line about every 10 seconds in the log."""
    from tqdm import tqdm

    if total is None and isinstance(items, Sized):
        total = len(items)
    with tqdm(
        total=total, desc=what, unit=unit, leave=False, file=_console, disable=not _console.isatty(), dynamic_ncols=True
    ) as bar:
        said = time.monotonic()
        for done, item in enumerate(items, start=1):
            yield item
            bar.update()
            if time.monotonic() - said > 10:
                log.info("%s: %d of %s", what, done, total if total is not None else "?")
                said = time.monotonic()


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a temporary neighbour of ``path`` to write to, and rename it when all went well.

    Works for files and folders. Whatever stood at ``path`` stays until the new content is whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        yield partial
        if path.is_dir() and partial.is_dir():
            old = path.with_name(f".{path.name}.old-{os.getpid()}")
            path.rename(old)
            partial.rename(path)
            shutil.rmtree(old)
        else:
            partial.replace(path)
    except Exception as error:
        # Libraries tell of a full disk in words of their own (polars: "invalid thrift: transport error").
        free = shutil.disk_usage(path.parent).free
        if error.errno not in FULL if isinstance(error, OSError) else free > 2**16:
            raise
        raise Failure(f"the disk is full: cannot write {path} (free some space in {path.parent})") from error
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write canonical JSON: sorted keys, two spaces, a newline at the end."""
    with whole(path) as partial:
        partial.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise Failure(f"{path}: no such file; what makes it did not run, or did not end") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise Failure(f"{path}: not valid JSON ({error}); delete it and run again") from None
