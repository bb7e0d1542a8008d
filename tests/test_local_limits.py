"""No more jobs run at once than this machine can hold, however the run is started."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import fresh
from mllm.execution import local_limits

RULES = """

rule stub:
    output:
        "stubs/{number}",
    resources:
        gpu=gpu_of_stub,
    shell:
        "card=${{CUDA_VISIBLE_DEVICES:-}}; echo begin $card >> trace; sleep 0.3; echo end $card >> trace; touch {output}"


rule stubs:
    input:
        expand("stubs/{number}", number=range(6)),
"""


@pytest.fixture(scope="module")
def stubs(tmp_path_factory):
    """Prepare the workflow with six jobs that only log when they begin and end."""
    made = fresh(tmp_path_factory.mktemp("limits") / "project")
    asking = (
        '\n\ngpu_of_stub = lambda wildcards: 1 if os.environ.get("STUBS_WANT_GPUS") and local_limits.gpus() else 0\n'
    )
    with (made.folder / "Snakefile").open("a") as file:
        file.write(asking + RULES)
    return made


def run(project, *arguments, cores=2, **environment):
    """Return the largest number of stubs that ran at once."""
    for file in (project.folder / "stubs").glob("*"):
        file.unlink()
    trace = project.folder / "trace"
    trace.unlink(missing_ok=True)
    processors = set(list(os.sched_getaffinity(0))[:cores])
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "stubs", "--configfile", "config/demo.yaml", *arguments],
        cwd=project.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, **environment}, preexec_fn=lambda: os.sched_setaffinity(0, processors),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    events = [line.split() for line in trace.read_text().splitlines()]
    assert len(events) == 12
    now = most = 0
    for event in events:
        now += 1 if event[0] == "begin" else -1
        most = max(most, now)
    return most


needs_two = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core here")


@pytest.mark.parametrize("cores", [1, pytest.param(2, marks=needs_two)])
def test_a_bare_start_runs_one_job_a_core(stubs, cores):
    assert run(stubs, cores=cores) == cores


@needs_two
@pytest.mark.parametrize(
    "arguments", [("--cores", "1"), ("--jobs", "1"), ("--profile", "profiles/local", "--cores", "1")]
)
def test_what_the_command_line_says_counts(stubs, arguments):
    assert run(stubs, *arguments) == 1


@needs_two
@pytest.mark.parametrize("cards", [1, 2])
def test_one_card_has_one_job(stubs, cards):
    assert run(stubs, STUBS_WANT_GPUS="1", MLLM_GPUS=str(cards)) == cards
    at_work = set()
    for event, *card in (line.split() for line in (stubs.folder / "trace").read_text().splitlines()):
        if cards > 1:
            assert card and (card[0] in at_work) == (event == "end")
            (at_work.add if event == "begin" else at_work.remove)(card[0])


def test_gpus_are_those_that_cuda_shows(monkeypatch):
    monkeypatch.setenv(local_limits.GPUS, "3")
    assert local_limits.gpus() == ["0", "1", "2"]


def test_memory_is_what_this_process_may_use():
    total = int(re.search(r"MemTotal: +(\d+) kB", Path("/proc/meminfo").read_text())[1]) // 1024
    assert 0 < local_limits.memory_mb() <= total
