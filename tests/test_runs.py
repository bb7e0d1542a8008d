"""A killed run's lock goes, a living one's stays."""

import os
import subprocess
import sys

import pytest

from mllm.core.files import read_json, write_json
from mllm.execution import run_lock


@pytest.fixture
def held(tmp_path):
    """A folder whose lock this living process holds."""
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks/0.input.lock").touch()
    os.utime(tmp_path / "locks/0.input.lock", (1, 1))
    run_lock.note_owner(tmp_path)
    return tmp_path


def test_a_living_run_s_lock_stays_and_its_owner_is_named(held, capsys):
    run_lock.look_at_lock(held)
    assert (held / "locks/0.input.lock").exists()
    assert f"(process {os.getpid()} on " in capsys.readouterr().err


def test_a_dead_run_s_lock_goes(held, capsys):
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    write_json(held / run_lock.OWNER, {**read_json(held / run_lock.OWNER), "pid": int(ended.stdout)})
    run_lock.look_at_lock(held)
    assert not (held / "locks").exists()
    assert "was killed; its lock is removed" in capsys.readouterr().err


def test_a_number_used_again_is_another_process(held):
    write_json(held / run_lock.OWNER, {**read_json(held / run_lock.OWNER), "born": 1})
    run_lock.look_at_lock(held)
    assert not (held / "locks").exists()


def test_another_machine_s_lock_is_left_to_the_user(held, capsys):
    write_json(held / run_lock.OWNER, {**read_json(held / run_lock.OWNER), "host": "elsewhere", "pid": 2**22 + 1})
    run_lock.look_at_lock(held)
    assert (held / "locks/0.input.lock").exists()
    assert "snakemake --unlock" in capsys.readouterr().err


def test_a_lock_newer_than_the_note_is_another_run_s(held, capsys):
    write_json(held / run_lock.OWNER, {**read_json(held / run_lock.OWNER), "born": 1})
    os.utime(held / run_lock.OWNER, (1000, 1000))
    os.utime(held / "locks/0.input.lock", (2000, 2000))
    run_lock.look_at_lock(held)
    assert (held / "locks/0.input.lock").exists()
    assert capsys.readouterr().err == ""
