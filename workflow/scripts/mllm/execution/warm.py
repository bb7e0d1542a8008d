"""Start jobs warm: one process per run and machine imports the libraries once and forks a child for each job.

    with warm.offered() as environment:     # a private folder with a program `python`, first in PATH
        subprocess.run(["bash", "-c", "python workflow/scripts/merge.py …"], env=environment)

The first such command starts the warm process (``warm_process``). Every ``python workflow/scripts/….py`` below the
folder's owner is then a thin client (``warm_client``) that waits for its forked child. All other ``python`` commands
start cold, and so does every script without a warm process. MLLM_COLD=1 turns warm starts off.
This module imports the standard library only, since job steps use it before the environment exists.
"""

import atexit
import contextlib
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

CLIENT = Path(__file__).with_name("warm_client.py")


class Usage(NamedTuple):
    """CPU time and memory that the children of one shell command used, measured by the kernel."""

    cpu_seconds: float
    peak_mb: float


def folder_of(environment: Mapping[str, str]) -> Path | None:
    """Return the folder that ``offered`` put first in an environment's PATH; None where jobs start cold."""
    first = Path(environment.get("PATH", "").partition(os.pathsep)[0])
    return first if (first / "owner").exists() else None


def offer(python: str = sys.executable) -> dict[str, str]:
    """Return this process's environment with a warm ``python`` first in PATH; the environment itself under MLLM_COLD.

    Args:
        python: the interpreter of jobs, with the libraries.

    This process is the owner: however it ends, the warm process and all its children are killed.
    """
    environment = dict(os.environ)
    if os.environ.get("MLLM_COLD"):
        return environment
    folder = Path(tempfile.mkdtemp(prefix="mllm-warm-"))  # mode 0700: the socket in it is this user's alone
    if len(str(folder)) > 80:  # a socket's path has 108 bytes at most
        shutil.rmtree(folder)
        folder = Path(tempfile.mkdtemp(prefix="mllm-warm-", dir="/tmp"))
    (folder / "owner").write_text(f"{os.getpid()} {_born(os.getpid())}")
    words = [python, "-IS", str(CLIENT), str(folder)]
    program = folder / "python"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    program.chmod(0o700)
    return {**environment, "PATH": f"{folder}{os.pathsep}{environment.get('PATH', '')}"}


@contextlib.contextmanager
def offered(python: str = sys.executable) -> Iterator[dict[str, str]]:
    """Yield an environment whose commands start warm; end the warm process afterwards."""
    environment = offer(python)
    try:
        yield environment
    finally:
        withdraw(environment)


def withdraw(environment: Mapping[str, str]) -> None:
    """Delete the folder that ``offer`` made; a warm process ends when its folder is deleted."""
    if folder := folder_of(environment):
        shutil.rmtree(folder, ignore_errors=True)


def use_in_this_run() -> None:
    """Let this Snakemake process's jobs start warm, and write the children's figures into benchmark files."""
    from snakemake import benchmark

    os.environ.update(offer())
    folder = folder_of(os.environ)
    if folder is None:
        return
    atexit.register(withdraw, dict(os.environ))
    original, sample = benchmark.benchmarked, benchmark.BenchmarkTimer.work

    @contextlib.contextmanager
    def benchmarked(pid: Any = None, benchmark_record: Any = None, *rest: Any) -> Iterator[Any]:
        with original(pid, benchmark_record, *rest) as record:
            yield record
        if pid and (used := usage(folder, pid)):
            record.max_rss, record.cpu_time = used.peak_mb, used.cpu_seconds
            record.cpu_usage = 100 * used.cpu_seconds
            record.max_vms = record.max_uss = record.max_pss = record.io_in = record.io_out = "NA"
            record.data_collected = True

    def work(self: Any) -> None:
        """Leave warm jobs alone, and any job in its first moment: a look at all processes takes 5 to 30 ms."""
        if not self._times_called:
            self.bench_record.process_gone = True  # unless a later look finds it
        elif (folder / "off").exists() or not _usage_files(folder, self.pid):
            sample(self)

    benchmark.benchmarked, benchmark.BenchmarkTimer.work = benchmarked, work


def usage(folder: Path, shell: int) -> Usage | None:
    """Return the CPU time and memory of a finished shell command's warm children; None if it started none.

    Args:
        folder: where ``offer`` put ``python``.
        shell: process number of the shell, or of the client that the shell became.
    """
    files = _usage_files(folder, shell)
    found = [tuple(map(float, words)) for file in files if (words := file.read_text().split())]
    for file in files:
        file.unlink(missing_ok=True)
    return Usage(sum(f[0] for f in found), max(f[1] for f in found)) if found else None


def _usage_files(folder: Path, shell: int) -> list[Path]:
    """The files that the warm process makes when it forks a child, and fills when the child has ended."""
    return [*folder.glob(f"{shell}.*.usage"), *folder.glob(f"*.{shell}.usage")]


def _born(pid: int) -> str:
    """Return a process's start in the kernel's ticks: with its number, it identifies the process uniquely."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
