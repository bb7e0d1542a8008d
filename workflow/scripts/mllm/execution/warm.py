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
from typing import NamedTuple

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


def use_in_this_run() -> Path | None:
    """Let this Snakemake process's jobs start warm; return the folder that ``offer`` made, None where jobs start cold."""
    os.environ.update(offer())
    folder = folder_of(os.environ)
    if folder:
        atexit.register(withdraw, dict(os.environ))
    return folder


def started(folder: Path, shell: int) -> bool:
    """Tell whether a shell command has started warm children.

    Args:
        folder: where ``offer`` put ``python``.
        shell: process number of the shell, or of the client that the shell became.
    """
    return bool(_usage_files(folder, shell)) and not (folder / "off").exists()


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
    """Return the files that the warm process makes when it forks a child, and fills when the child has ended."""
    return [*folder.glob(f"{shell}.*.usage"), *folder.glob(f"*.{shell}.usage")]


def _born(pid: int) -> str:
    """Return a process's start in the kernel's ticks: with its number, it identifies the process uniquely."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
