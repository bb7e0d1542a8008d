"""Prepare the environment of the machine that runs Snakemake: Python, threads, UTF-8, scratch folder."""

import io
import os
import sys
from pathlib import Path


def use_this_python() -> None:
    """Run scripts with the Python that runs Snakemake, whether its environment is activated or not."""
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def let_waiting_threads_sleep() -> None:
    """Let compute threads of jobs sleep while they wait for each other, instead of keeping a core busy.

    Results are the same. Measured were small training steps of 2 threads, on 2 cores shared with other runs. They took
    7 ms of processor time with sleep, 69 to 143 ms with libgomp's default. In 4 seconds, 20 to 34 times as many were
    done.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def speak_utf8() -> None:
    """Use UTF-8 for text whatever the locale: jobs write it; this process replaces characters that the locale lacks."""
    os.environ["PYTHONUTF8"] = "1"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower().replace("-", "") != "utf8":
            stream.reconfigure(errors="replace")


def use_scratch() -> None:
    """Put results and caches into MLLM_SCRATCH, if it is set: homes on clusters have small quotas."""
    scratch = os.environ.get("MLLM_SCRATCH")
    if not scratch:
        return
    home = Path(scratch, "mllm").absolute()
    (home / "results").mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("XDG_CACHE_HOME", str(home / "cache"))
    results = Path("results")
    if not results.is_symlink() and not results.exists():
        results.symlink_to(home / "results")
