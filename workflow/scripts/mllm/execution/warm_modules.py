"""Which third-party modules a script's jobs import: learned from one, imported by the warm process before the next.

A list for each script lies beside the bytecode, so that a later run's first job, and a Slurm allocation's, is warm too.
What a list has too much or too little costs time alone.
"""

import contextlib
import gc
import importlib
import os
import sys
from pathlib import Path

LISTS = Path(__file__).resolve().parent / "__pycache__"
# What a library makes at its first use and keeps: module -> function, called with "" where the module was imported.
FIRST_USE = {"transformers.conversion_mapping": "get_checkpoint_conversion_mapping"}  # compiles a thousand patterns


class Modules:
    """The lists, and what of them cannot be imported by itself."""

    def __init__(self) -> None:
        self.lists: dict[str, list[str]] = {}
        self.failed: set[str] = set()
        self.now: list[str] = []  # what this run's jobs imported by themselves

    def of(self, script: str) -> list[str]:
        """Names in the order in which a job imported them; none of a script that never ran warm."""
        if script not in self.lists:
            try:
                self.lists[script] = _file(script).read_text().split()
            except OSError:
                self.lists[script] = []
        return self.lists[script]

    def load(self, script: str) -> None:
        """Import what is missing of a script's list; of a script without one, what this run's other jobs imported."""
        wanted = self.of(script) or self.now
        missing = [n for n in wanted if n not in sys.modules and n not in self.failed]
        for name in missing:
            if name not in sys.modules:
                try:
                    importlib.import_module(name)
                except Exception as error:
                    self.failed.add(name)
                    print(f"{name}: {error!r}", flush=True)
        for name in FIRST_USE.keys() & set(missing):
            with contextlib.suppress(Exception):
                getattr(sys.modules[name], FIRST_USE[name])("")
        if missing:
            gc.collect()
            gc.freeze()  # children do not copy what they never free

    def learn(self, script: str, imported: list[str]) -> None:
        """Add what a job imported by itself to its script's list."""
        self.now += imported
        new = [name for name in imported if name not in self.of(script)]
        if new:
            self.lists[script] += new
            partial = _file(script).with_suffix(f".{os.getpid()}")
            with contextlib.suppress(OSError):  # a checkout that one may only read
                LISTS.mkdir(exist_ok=True)
                partial.write_text("\n".join(self.lists[script]))
                partial.replace(_file(script))


def _file(script: str) -> Path:
    return LISTS / f"warm-{script}.txt"
