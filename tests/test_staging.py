"""Test copies on a node's own disk: used, made once, remade when the original changes, and never harmful."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT
from mllm.core import node_cache


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "network/base"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_nothing_is_copied_unless_asked_for(model, monkeypatch):
    monkeypatch.delenv(node_cache.VARIABLE, raising=False)
    assert node_cache.near(model) == model
    assert node_cache.near_environment(Path(sys.prefix)) == Path(sys.prefix)


def test_a_model_is_copied_once_and_again_when_it_changed(model, tmp_path, monkeypatch):
    monkeypatch.setenv(node_cache.VARIABLE, str(tmp_path / "node"))
    copy = node_cache.near(model)
    assert copy.is_relative_to(tmp_path / "node") and (copy / "model.safetensors").read_bytes() == b"weights"
    made = (copy / "model.safetensors").stat().st_ino
    assert node_cache.near(model) == copy and (copy / "model.safetensors").stat().st_ino == made
    (model / "model.safetensors").write_bytes(b"other weights")
    assert (node_cache.near(model) / "model.safetensors").read_bytes() == b"other weights"
    # No other user may put weights there.
    assert copy.parent.stat().st_mode & 0o777 == 0o700


def test_jobs_that_start_at_once_share_one_whole_copy(model, tmp_path):
    (model / "model.safetensors").write_bytes(os.urandom(20_000_000))
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, 'workflow/scripts'); from mllm.core import node_cache as staging;"
        f"copy = staging.near(Path({str(model)!r})); print(copy, (copy / 'model.safetensors').stat().st_size)"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True,
            env={**os.environ, node_cache.VARIABLE: str(tmp_path / "node")},
        )
        for _ in range(6)
    ]  # fmt: skip
    said = {p.communicate()[0] for p in started}
    assert len(said) == 1 and said.pop().split()[1] == "20000000"
    assert len([f for f in (tmp_path / "node").glob("*/*") if f.is_dir()]) == 1


def test_a_cache_that_cannot_be_written_costs_the_copy_and_not_the_job(model, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv(node_cache.VARIABLE, str(tmp_path / "file"))
    assert node_cache.near(model) == model
    assert "the job uses the original" in capsys.readouterr().err


def test_a_job_runs_in_the_copied_environment(tmp_path):
    """Run with a real environment and the job's real wrapper."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    (packages,) = (tmp_path / "venv").glob("lib/python3*/site-packages")
    (packages / "near.py").write_text("place = __file__")
    record = tmp_path / "job.json"
    member = {
        "key": "k", "rule": "r", "job": "j", "place": "r/j", "needs": [], "local": [], "outputs": [], "requested": {},
        "benchmark": "", "command": 'python -c "import near, sys; print(near.place, sys.prefix)"',
    }  # fmt: skip
    record.write_text(json.dumps({"key": "k", "submitted": 0, "members": [member]}))
    done = subprocess.run(
        [tmp_path / "venv/bin/python", "-I", ROOT / "workflow/scripts/mllm/execution/jobstep.py", record, "k"],
        capture_output=True, text=True, env={**os.environ, "SLURM_JOB_ID": "1", node_cache.VARIABLE: str(tmp_path / "node")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    place, prefix = done.stdout.split()
    assert place.startswith(str(tmp_path / "node")) and prefix.startswith(str(tmp_path / "node"))
