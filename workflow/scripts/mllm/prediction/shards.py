"""Keep unfinished predictions, so that a preempted job resumes where it stopped."""

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
        folder: outlives the job; shards of other predictions in it are deleted.
        key: digest of all that determines the predictions: no job resumes those of another model or other reviews.
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
        """Return the results of the first batches, up to the first gap."""
        found: list[np.ndarray[Any, Any]] = []
        while (file := self.own / f"{len(found)}.npz").exists():
            with np.load(file) as shard:
                found += [shard[name] for name in sorted(shard.files, key=lambda n: int(n.removeprefix("arr_")))]
        if found:
            log.info("resuming after %s reviews from %s", f"{sum(map(len, found)):,}", self.own)
        self._first = len(found)
        return found

    def keep(self, rows: np.ndarray[Any, Any]) -> None:
        """Add the next batch's results; write a shard if ``seconds`` have passed since the last one."""
        self._rows.append(rows)
        if time.monotonic() - self._written < self.seconds:
            return
        with whole(self.own / f"{self._first}.npz") as partial, partial.open("wb") as file:
            np.savez(file, *self._rows)
        self._first, self._rows, self._written = self._first + len(self._rows), [], time.monotonic()

    def remove(self) -> None:
        """Delete all shards, once the predictions are complete."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # other jobs still use the folder, or it never existed
            self.folder.parent.rmdir()
