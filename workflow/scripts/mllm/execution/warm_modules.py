"""List the third-party modules that a script's jobs import; the warm process imports them before the next job.

Each script's list is kept beside the bytecode, so that the first job of a later run or Slurm allocation is warm too.
Wrong entries in a list cost time only.
"""

import contextlib
import gc
import importlib
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

LISTS = Path(__file__).resolve().parent / "__pycache__"
BEGIN = "__register_startup_deps"  # polars' own beginning, which starts a thread
# What a library makes and keeps at its first use: module -> function, called with "" once the module is imported.
FIRST_USE = {"transformers.conversion_mapping": "get_checkpoint_conversion_mapping"}  # compiles a thousand patterns
held_back: list[Callable[[], object]] = []  # what starts the threads of imported libraries


class Modules:
    """The lists, and the modules in them that cannot be imported by themselves."""

    def __init__(self) -> None:
        self.lists: dict[str, list[str]] = {}
        self.failed: set[str] = set()
        self.now: list[str] = []  # modules that this run's jobs imported themselves

    def of(self, script: str) -> list[str]:
        """Return names in the order in which a job imported them; empty if the script never ran warm."""
        if script not in self.lists:
            try:
                self.lists[script] = _file(script).read_text().split()
            except OSError:
                self.lists[script] = []
        return self.lists[script]

    def load(self, script: str) -> None:
        """Import the missing modules of a script's list; without a list, those that this run's other jobs imported."""
        wanted = self.of(script) or self.now
        missing = [n for n in wanted if n not in sys.modules and n not in self.failed]
        for name in missing:
            if name not in sys.modules:
                try:
                    hold_back_threads() if name.partition(".")[0] == "polars" else None
                    importlib.import_module(name)
                except Exception as error:
                    self.failed.add(name)
                    print(f"{name}: {error!r}", flush=True)
        for name in FIRST_USE.keys() & set(missing):
            with contextlib.suppress(Exception):
                getattr(sys.modules[name], FIRST_USE[name])("")
        if missing:
            gc.collect()
            gc.freeze()  # so that children do not copy objects that they never free

    def learn(self, script: str, imported: list[str]) -> None:
        """Add the modules that a job imported itself to its script's list."""
        self.now += imported
        new = [name for name in imported if name not in self.of(script)]
        if new:
            self.lists[script] += new
            partial = _file(script).with_suffix(f".{os.getpid()}")
            with contextlib.suppress(OSError):  # the checkout may be read-only
                LISTS.mkdir(exist_ok=True)
                partial.write_text("\n".join(self.lists[script]))
                partial.replace(_file(script))


def hold_back_threads() -> None:
    """Import polars without the thread that it starts when it is imported: that is each child's to start.

    Half of what a warm prediction did beside its model's passes was this import. Its pool of threads starts at its first use.
    """
    if "polars" in sys.modules:
        return
    runtime = importlib.import_module("_polars_runtime_32._polars_runtime")
    begin = getattr(runtime, BEGIN)
    setattr(runtime, BEGIN, lambda *arguments: held_back.append(partial(begin, *arguments)))
    try:
        importlib.import_module("polars")
    finally:
        setattr(runtime, BEGIN, begin)


def start_threads() -> None:
    """In a child: start the threads that were held back."""
    for begin in held_back:
        begin()


def _file(script: str) -> Path:
    return LISTS / f"warm-{script}.txt"
