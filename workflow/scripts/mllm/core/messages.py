"""Messages of a running script: log lines and the progress of long steps."""

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from pathlib import Path
from typing import TextIO, TypeVar

from mllm.core.wording import in_time

log = logging.getLogger("mllm")
T = TypeVar("T")
console: TextIO = sys.stderr
PAUSE = 30.0  # seconds between two lines of a job on the console
_steps: list[Callable[[], str]] = []  # running steps, the innermost last


def start_logging(prefix: str = "") -> None:
    """Log lines with the time of day; ``prefix`` distinguishes the processes of one job."""
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {prefix}%(message)s", datefmt="%H:%M:%S")
    for chatty in ("httpx", "httpx2", "httpcore", "httpcore2", "urllib3", "filelock"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def keep_telling(log_file: Path, script: str) -> threading.Event:
    """Print this job's progress on the console every 30 s, until the returned event is set."""
    job = log_file.with_suffix("").as_posix().rpartition(f"/{script}/")[2].rpartition("/logs/")[2]
    name = script if job == script else f"{script} {job}"
    begin, over = time.monotonic(), threading.Event()

    def tell() -> None:
        while not over.wait(PAUSE):
            far = _steps[-1]() if _steps else f"{in_time(time.monotonic() - begin)} so far"
            print(f"[{name}] {far}", file=console, flush=True)

    threading.Thread(target=tell, daemon=True).start()
    return over


@contextlib.contextmanager
def step(far: Callable[[], str]) -> Iterator[None]:
    """Register ``far`` as the function that says how far this block is."""
    _steps.append(far)
    try:
        yield
    finally:
        _steps.remove(far)


def progress(items: Iterable[T], what: str, total: int | None = None, unit: str = "it") -> Iterator[T]:
    """Iterate, and log a line about every 10 s: ``training: step 300 of 2,000, about 2 min left``.

    A script that a user runs by hand on a terminal shows a progress bar.
    """
    from tqdm import tqdm

    if total is None and isinstance(items, Sized):
        total = len(items)
    begin, done = time.monotonic(), 0

    def far() -> str:
        of = f" of {total:,}" if total is not None else ""
        left = (time.monotonic() - begin) / done * (total - done) if total is not None and done else 0
        return f"{what}: {unit} {done:,}{of}" + (f", about {in_time(left)} left" if left > 0 else "")

    bar = tqdm(
        total=total, desc=what, unit=unit, leave=False, file=console, dynamic_ncols=True,
        disable=console is not sys.stderr or not console.isatty(),
    )  # fmt: skip
    with bar, step(far):
        said = begin
        for item in items:
            yield item
            done += 1
            bar.update()
            if time.monotonic() - said > 10:
                log.info("%s", far())
                said = time.monotonic()
