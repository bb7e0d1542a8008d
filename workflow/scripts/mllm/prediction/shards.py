"""Predictions kept while they are made, so that a preempted job goes on where it stopped."""

import contextlib
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from mllm.core.files import whole
from mllm.core.messages import log


class Shards:
    """Files of finished batches, in the order of the batches.

    Args:
        folder: outlives the job; other predictions' shards in it are removed.
        key: of all that predictions depend on: nobody goes on from another model's or other reviews'.
        seconds: time between two shards.
    """

    def __init__(self, folder: Path, key: str, seconds: float) -> None:
        self.folder, self.own, self.seconds = folder, folder / key, seconds
        if folder.exists():
            for other in [f for f in folder.iterdir() if f != self.own]:
                shutil.rmtree(other)
        self._rows: list[np.ndarray[Any, Any]] = []
        self._first = 0
        self._written = time.monotonic()

    def resume(self) -> list[np.ndarray[Any, Any]]:
        """The results of the first batches, as far as they are there without a gap."""
        found: list[np.ndarray[Any, Any]] = []
        while (file := self.own / f"{len(found)}.npz").exists():
            with np.load(file) as shard:
                found += [shard[name] for name in sorted(shard.files, key=lambda n: int(n.removeprefix("arr_")))]
        if found:
            log.info("going on after %s reviews from %s", f"{sum(map(len, found)):,}", self.own)
        self._first = len(found)
        return found

    def keep(self, rows: np.ndarray[Any, Any]) -> None:
        """Take the next batch's results; write what has come together, when it is time."""
        self._rows.append(rows)
        if time.monotonic() - self._written < self.seconds:
            return
        with whole(self.own / f"{self._first}.npz") as partial, partial.open("wb") as file:
            np.savez(file, *self._rows)
        self._first, self._rows, self._written = self._first + len(self._rows), [], time.monotonic()

    def remove(self) -> None:
        """Once the predictions are whole."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # others are still at work there, or it never was
            self.folder.parent.rmdir()
