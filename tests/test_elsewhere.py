"""Test users' texts in the shell, other working directories, other locales: quoted, refused in one line, or handled."""

import json
import os
import re
import shlex
import subprocess
import sys

import pytest
import yaml

from conftest import ROOT

ODD = {
    "name": "odd",
    "data": {"source": "local", "train": "in/r 1;touch a.csv", "columns": {"review": "it {2}", "kind": "kind $(touch b)"}},
    "split": {"mode": "random"},
    "tasks": [{"name": "t", "column": "kind", "classes": {"{a}": ["x"], "b'; touch c": ["y z"], "$(touch d)": ["w"]}}],
    "models": [
        {"name": "m", "source": "local", "path": "in/my model's ;touch e"},
        {"name": "asked", "source": "local", "path": "in/$(touch f)", "family": "causal", "prompt": {"template": "{review} '{x}' $(touch g)"}},
    ],
    "base": "m",
    "experts": [{"name": "s", "parts": 2}, {"name": "w", "where": {"kind": ["y z", "{w}"]}}],
    "merges": [{"method": "linear", "members": ["s-*"], "weight": {"s-0": 1, "s-1": 2}}],
    "references": [{"name": "lm", "model": "asked", "train": "none"}, {"name": "taken", "model": "m", "train": "none", "labels": {"{a}": "L 0", "b'; touch c": "L;1", "$(touch d)": "{L}"}}],
    "blends": [{"name": "v", "method": "soft_vote", "members": ["s-*", "lm"]}],
}  # fmt: skip


COMMANDS = """
import contextlib, io, json, sys
from pathlib import Path
from snakemake.api import ConfigSettings, OutputSettings, ResourceSettings, SnakemakeApi
with contextlib.redirect_stdout(io.StringIO()), SnakemakeApi(OutputSettings()) as api:
    workflow = api.workflow(ResourceSettings(cores=1), ConfigSettings(configfiles=[Path(sys.argv[1])]), snakefile=Path("Snakefile"))
    workflow.dag().printrulegraph()
    commands = [job.shellcmd for job in workflow._workflow.dag.jobs if job.shellcmd]
print(json.dumps(commands))
"""


def snakemake(folder, *arguments, **environment):
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, **environment},
    )  # fmt: skip
    return done.returncode, done.stdout.decode("utf-8", errors="replace")


@pytest.fixture
def root(tmp_path):
    for link in ("Snakefile", "workflow", "profiles", "config"):
        (tmp_path / link).symlink_to(ROOT / link)
    return tmp_path


def test_what_the_user_wrote_reaches_the_shell_as_one_word(root):
    for path in (ODD["data"]["train"], *(m["path"] + "/config.json" for m in ODD["models"])):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("it {2},kind $(touch b)\na,y z\na,{w}\na,x\na,w\n" if path.endswith("csv") else "{}")
    (root / "in/own {é} $(touch h).yaml").write_text(yaml.safe_dump(ODD, allow_unicode=True))
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, "in/own {é} $(touch h).yaml"], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    commands = json.loads(done.stdout)
    assert len(commands) >= 15
    words = [shlex.split(command) for command in commands]  # fails if a quotation mark is left open
    everything = {word for command in words for word in command}
    expected = {ODD["data"]["train"], *(m["path"] for m in ODD["models"]), "in/own {é} $(touch h).yaml"}
    assert expected <= everything
    for command in commands:  # without the parts in quotation marks
        bare = re.sub(r"\"'\"|'[^']*'", "", command)
        assert "touch" not in bare and not set(";&|`") & set(bare), command


@pytest.mark.parametrize("how", ["another folder", "-d", "a folder within"])
def test_a_run_from_elsewhere_is_refused_in_one_line(root, tmp_path, how):
    other = tmp_path / "other"
    other.mkdir()
    config = ("--configfile", str(ROOT / "config/demo.yaml"))
    place, arguments = {
        "another folder": (other, ("-s", str(root / "Snakefile"))), "-d": (root, ("-d", str(other))),
        "a folder within": (other, ("-s", "../Snakefile")),
    }[how]  # fmt: skip
    status, said = snakemake(place, "-n", *arguments, *config)
    assert status == 1
    (line,) = [line for line in said.splitlines() if "error" in line]
    assert "the working directory is" in line and f"Fix: cd {ROOT}" in line.replace(str(root), str(ROOT))
    assert "Traceback" not in said


def test_a_locale_without_utf8_loses_nothing(demo, tmp_path):
    project = demo.copy(tmp_path / "project")
    (project.folder / "results/demo/leaderboard.txt").unlink()
    plain = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    status, said = snakemake(project.folder, "--profile", "profiles/local", "--configfile", "config/demo.yaml", **plain)
    assert status == 0, said[-3000:]
    for name in ("leaderboard.txt", "verdict.md"):
        text = (project.folder / f"results/demo/{name}").read_bytes().decode("utf-8")
        assert text == (demo.folder / f"results/demo/{name}").read_bytes().decode("utf-8")
    board = (project.folder / "results/demo/leaderboard.txt").read_text(encoding="utf-8")
    assert board.splitlines()[2].encode("ascii", "replace").decode() in said
