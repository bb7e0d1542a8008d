"""A killed run's lock is removed, a living run's stays; jobs of a killed run are ended."""

import os
import subprocess
import sys

import pytest

from mllm.core.files import read_json, write_json
from mllm.execution import run_lock


@pytest.fixture
def held(tmp_path, monkeypatch):
    """Make a folder whose lock this living process holds."""
    monkeypatch.setenv(run_lock.TOKEN, "")
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks/0.input.lock").touch()
    os.utime(tmp_path / "locks/0.input.lock", (1, 1))
    run_lock.note_owner(tmp_path, local=True)
    return tmp_path


def note_of(folder):
    (note,) = (folder / run_lock.NOTES).glob("*.json")
    return note


def change(folder, **values):
    write_json(note_of(folder), {**read_json(note_of(folder)), **values})


def test_a_living_run_s_lock_stays_and_its_owner_is_named(held):
    run_lock.look_at_lock(held)
    assert (held / "locks/0.input.lock").exists()
    assert f"(process {os.getpid()} on " in run_lock.who_works_here(held)


def test_a_dead_run_s_lock_goes(held, capsys):
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    change(held, pid=int(ended.stdout))
    run_lock.look_at_lock(held)
    assert not (held / "locks").exists()
    assert "was killed; its lock is removed" in capsys.readouterr().err


def test_a_living_run_keeps_the_lock_beside_a_dead_one(held):
    write_json(held / run_lock.NOTES / "dead.json", {**read_json(note_of(held)), "born": 1})
    run_lock.look_at_lock(held)
    assert (held / "locks/0.input.lock").exists()


def test_a_number_used_again_is_another_process(held):
    change(held, born=1)
    run_lock.look_at_lock(held)
    assert not (held / "locks").exists()


def test_another_machine_s_lock_is_left_to_the_user(held):
    change(held, host="elsewhere", pid=2**22 + 1)
    run_lock.look_at_lock(held)
    assert (held / "locks/0.input.lock").exists()
    assert "snakemake --unlock" in run_lock.who_works_here(held)


def test_a_lock_newer_than_the_note_is_another_run_s(held, capsys):
    change(held, born=1)
    os.utime(note_of(held), (1000, 1000))
    os.utime(held / "locks/0.input.lock", (2000, 2000))
    run_lock.look_at_lock(held)
    assert (held / "locks/0.input.lock").exists()
    assert capsys.readouterr().err == ""


def test_jobs_of_a_dead_run_are_ended_but_not_those_of_slurm(tmp_path):
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    mine = {**os.environ, run_lock.TOKEN: "dead-run"}
    left, slurm = subprocess.Popen(sleep, env=mine), subprocess.Popen(sleep, env={**mine, "SLURM_JOB_ID": "1"})
    other = subprocess.Popen(sleep, env={**os.environ, run_lock.TOKEN: "dead-run-2"})
    try:
        run_lock.end_jobs("dead-run")
        assert left.wait(5) == -9
        assert slurm.poll() is None and other.poll() is None
    finally:
        for process in (slurm, other):
            process.kill()
            process.wait()
