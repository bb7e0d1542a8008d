"""The `snakemake` command, forked from one process that has imported it: the real command without the seconds of its start."""

import atexit
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

PRELOADED = [
    "snakemake.cli", "snakemake.api", "snakemake.workflow", "snakemake_executor_plugin_slurm", "polars", "pydantic", "yaml",
]  # fmt: skip
"""Third-party modules alone: the project's own are imported in each fork, from the folder that it runs in."""


def run(
    arguments: Sequence[object], folder: Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `snakemake` in a folder.

    Args:
        arguments: of the command.
        folder: to run in.
        environment: all variables; those of this process if not given.

    Returns:
        Its exit status, and what it printed on both streams in their order.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    words = [str(argument) for argument in arguments]
    with tempfile.NamedTemporaryFile() as printed:
        given = words, str(folder), environment or dict(os.environ), printed.name
        process = context.Process(target=_command, args=given)
        process.start()
        process.join()
        assert process.exitcode is not None
        text = Path(printed.name).read_text(errors="replace")
    return subprocess.CompletedProcess(["snakemake", *words], process.exitcode, text)


def _command(arguments: list[str], folder: str, environment: dict[str, str], printed: str) -> None:
    """What a new interpreter would have found, then the command, then what an interpreter does at its end."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    output = os.open(printed, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    sys.stdout.reconfigure(line_buffering=False)  # type: ignore[union-attr]
    # Neither the tests' own folders nor, before the project's copy, the project itself.
    sys.path[:] = [folder, *(path for path in sys.path if path.startswith((sys.prefix, sys.base_prefix)))]
    sys.argv = [str(Path(sys.prefix) / "bin/snakemake"), *arguments]
    from snakemake.cli import main

    try:
        main(arguments)
    finally:
        atexit._run_exitfuncs()
