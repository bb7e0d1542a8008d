"""What a script tells its user while it works: log lines and progress."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TextIO, TypeVar

log = logging.getLogger("mllm")
T = TypeVar("T")
console: TextIO = sys.stderr


def start_logging(prefix: str = "") -> None:
    """Lines with the time of day; ``prefix`` tells processes of one job apart."""
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {prefix}%(message)s", datefmt="%H:%M:%S")
    for chatty in ("httpx", "httpx2", "httpcore", "httpcore2", "urllib3", "filelock"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def progress(items: Iterable[T], what: str, total: int | None = None, unit: str = "it") -> Iterator[T]:
    """Iterate with a bar on a terminal and a plain line about every 10 seconds in the log."""
    from tqdm import tqdm

    if total is None and isinstance(items, Sized):
        total = len(items)
    with tqdm(
        total=total, desc=what, unit=unit, leave=False, file=console, disable=not console.isatty(), dynamic_ncols=True
    ) as bar:
        said = time.monotonic()
        for done, item in enumerate(items, start=1):
            yield item
            bar.update()
            if time.monotonic() - said > 10:
                log.info("%s: %d of %s", what, done, total if total is not None else "?")
                said = time.monotonic()
