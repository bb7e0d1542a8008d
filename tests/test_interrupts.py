"""However a run is interrupted, the same command resumes it, and reruns no finished job."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from conftest import fresh

COMMAND = [sys.executable, "-m", "snakemake", "stubs", "--configfile", "config/demo.yaml"]
RULES = """

rule stub:
    output:
        directory("stubs/{number}"),
    log:
        "stub-logs/{number}.log",
    shell:
        "mkdir -p {output}; echo begin {wildcards.number} >> trace; sleep 0.4; while [ -e hold ]; do sleep 0.1; done; touch {output}/half; echo half >> trace;"
        " sleep 0.4; touch {output}/whole; echo end {wildcards.number} >> trace"


rule stubs:
    input:
        expand("stubs/{number}", number=range(5)),
"""


@pytest.fixture(scope="module")
def workflow(tmp_path_factory):
    made = fresh(tmp_path_factory.mktemp("interrupts") / "project")
    with (made.folder / "Snakefile").open("a") as file:
        file.write(RULES)
    return made.folder


@pytest.fixture
def stubs(workflow):
    """Prepare the workflow with five jobs, none of them run."""
    subprocess.run(["rm", "-rf", "stubs", "stub-logs", "trace", "hold"], cwd=workflow, check=True)
    return workflow


def start(folder):
    return subprocess.Popen(
        COMMAND, cwd=folder, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for(folder, line, times):
    """Wait until the jobs have written a line this often."""
    while (folder / "trace").read_text().count(line) < times if (folder / "trace").exists() else True:
        time.sleep(0.02)


def continued(folder):
    """Rerun the same command; return its output, and how often each job ended in total."""
    again = subprocess.run(COMMAND, cwd=folder, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert all((folder / f"stubs/{number}/whole").exists() for number in range(5))
    ends = Counter(line.split()[1] for line in (folder / "trace").read_text().splitlines() if line.startswith("end"))
    return again.stdout + again.stderr, ends


@pytest.mark.parametrize(
    ("number", "to_all"),
    [(signal.SIGINT, True), (signal.SIGTERM, False)],
)
def test_a_signal_ends_a_run_in_one_line(stubs, number, to_all):
    run = start(stubs)
    wait_for(stubs, "end", 1)
    wait_for(stubs, "half", 2)
    (os.killpg if to_all else os.kill)(run.pid, number)
    said, _ = run.communicate(timeout=20)
    assert run.returncode != 0
    assert said.rstrip().endswith("Interrupted. Finished results are kept. Rerun the same command to resume."), said
    for word in ("FAILED", "Error", "Traceback", "incomplete"):
        assert word not in said
    _, ends = continued(stubs)
    assert set(ends.values()) == {1}


def test_a_killed_run_leaves_no_job_at_work(stubs):
    run = start(stubs)
    wait_for(stubs, "end", 1)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    said, ends = continued(stubs)
    assert "was killed; its lock is removed" in said
    # A job that ended after its run was killed may be rerun.
    assert sum(ends.values()) <= 5 + len(os.sched_getaffinity(0))
    # No job of the killed run writes beside the second run: after its last begin, each job has one half.
    assert (stubs / "trace").read_text().count("half") <= 5 + len(os.sched_getaffinity(0))


def test_a_second_run_beside_a_living_one_stops(stubs):
    (stubs / "hold").touch()
    run = start(stubs)
    wait_for(stubs, "begin", 1)
    second = subprocess.run(COMMAND, cwd=stubs, capture_output=True, text=True)
    assert second.returncode != 0
    assert f"(process {run.pid} on " in second.stderr
    assert "uses this folder. Fix: wait until it ends." in second.stderr
    assert "unlock" not in second.stderr
    (stubs / "hold").unlink()
    run.communicate()
    assert run.returncode == 0
