"""Test a run's messages, and the files that must agree with uv.lock."""

import io
import re
import subprocess
import sys
import time
import tomllib
from collections import Counter
from importlib import metadata
from pathlib import Path

import pytest
import yaml

from conftest import ROOT, SCRIPTS
from mllm.core import messages, wording
from mllm.core.files import write_json
from mllm.execution import estimate, log_format, retraining
from mllm.experiment import grid


@pytest.mark.parametrize(
    ("reason", "short"),
    [
        ("Missing output files: a, b; Input files updated by another job: c", "missing, input will change"),
        ("Updated input files: x", "input changed"),
        ("Code has changed since last execution", "rule changed"),
        ("Set of input files has changed since last execution", "other inputs"),
        ("Something new", "Something new"),
        (
            "Params have changed since last execution: Union of exclusive params before and now across all output: before: 'a' now: 'b'",
            "parameters changed: 'a' → 'b'",
        ),
    ],
)
def test_reasons(reason, short):
    assert log_format.why(reason) == short


def test_a_first_run_has_no_reasons():
    assert log_format.why("Missing output files: a; Input files updated by another job: c", known=False) == ""
    assert log_format.why("Updated input files: x", known=False) == "input changed"


@pytest.mark.parametrize("wildcards", [{"whole": "joint@2"}, {"whole": "joint", "run": "@2"}])
def test_a_model_over_several_tasks_is_named_by_its_run(wildcards):
    assert log_format.describe(grid.Grid({}, {}, []), "train_tasks", wildcards) == "joint@2"


def test_the_time_that_is_left(tmp_path):
    (tmp_path / "predict").mkdir()
    for name, seconds in (("a", "10.0"), ("b", "20.0")):
        (tmp_path / f"predict/{name}.tsv").write_text(f"s\th:m:s\n{seconds}\t0:00:10\n")
    assert estimate.usual_seconds(tmp_path, {"predict", "merge"}) == {"predict": 15.0}
    counted = Counter(predict=4, merge=2)
    planned = estimate.Estimate(counted, {"predict": 15.0, "merge": 5.0}, {"merge"}, core_seconds=70, cores=2)
    assert (
        str(planned) == "Estimate: 6 jobs; about 35 s on 2 cores (4 jobs by earlier runs, 2 by sizes); disk about 0 MB"
    )
    submitted = estimate.Estimate(counted, {}, {"merge", "predict"}, core_seconds=7200, gpu_seconds=3600)
    assert str(submitted) == (
        "Estimate: 6 jobs; about 2.0 h of work, one job after another (by sizes: no such job ran here yet);"
        " about 1.0 GPU-hours; disk about 0 MB"
    )
    for job in range(3):
        left = planned.left("predict", job, 15.0)
    assert left > 0
    planned.left("merge", 9, 100.0)
    assert planned.seconds["merge"] == 100.0 and not planned.guessed


def test_a_long_step_says_how_far_it_is(monkeypatch):
    said = io.StringIO()
    monkeypatch.setattr(messages, "console", said)
    monkeypatch.setattr(messages, "PAUSE", 0.001)
    over = messages.keep_telling(Path("results/x/logs/prepare_base/base-t.log"), "prepare_base")
    for step in messages.progress(range(2001), "training", unit="step"):
        if step == 2000:
            while "[prepare_base base-t] training: step 2,000 of 2,001, about " not in said.getvalue():
                time.sleep(0.01)
    with messages.step(lambda: "downloading: 3 MB of 500"):
        while "[prepare_base base-t] downloading: 3 MB of 500\n" not in said.getvalue():
            time.sleep(0.01)
    while not re.search(r"^\[prepare_base base-t\] \d+ s so far$", said.getvalue(), re.M):
        time.sleep(0.01)
    over.set()


@pytest.mark.parametrize("profile", [[], ["--profile", "profiles/local"], ["--profile", "slurm"]])
def test_a_wrong_experiment_file_is_one_message(tmp_path, profile):
    (tmp_path / "broken.yaml").write_text("name: x\ndata: {a: [\ntasks: 3\n")
    for file, message in (
        ("config/dmeo.yaml", "config/dmeo.yaml: 1 error\n  no such file; did you mean 'config/demo.yaml'?"),
        (tmp_path / "broken.yaml", "not valid YAML: line 4, column 1: did not find expected"),
    ):
        command = [sys.executable, "-m", "snakemake", "-n", "--configfile", file, *profile]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 1
        told = done.stderr.splitlines()
        assert told[0].startswith("Using ")
        assert told[1].startswith("error: ") and message in done.stderr
        assert len(told) == 3


def test_what_changed_in_an_experiment():
    before = {"split": {"seed": 1, "valid": 0.1}, "experts": [{"name": "a", "steps": 1}, {"name": "b", "steps": 1}]}
    now = {"split": {"seed": 2, "valid": 0.1}, "experts": [{"name": "b", "steps": 2}, {"name": "a", "steps": 1}]}
    assert retraining.changed(before, now) == ["split.seed", "experts.b.steps"]


def test_a_training_under_another_name_is_named(tmp_path):
    hyper = {"steps": 2, "seed": 17}
    for name, part in (("old", {"where": {"kind": ["x"]}}), ("kept", {}), ("other", {"where": {"kind": ["y"]}})):
        write_json(tmp_path / name / "model.json", {"task": "t", "part": part, "hyper_parameters": hyper})
    wanted = [
        grid.Candidate(name, "expert", "t", part=part, hyper=hyper)
        for name, part in (("new", {"where": {"kind": ["x"]}}), ("more", {}))
    ]
    said = retraining.taken_over(wanted, {"new", "more", "kept"}, tmp_path)
    assert said == "Reuses trained models under their new names (old as new) if nothing else about them changed."
    assert retraining.taken_over(wanted[1:], {"new", "more", "kept"}, tmp_path) == ""
    assert retraining.same("new", wanted[0], tmp_path) == [tmp_path / "old"]
    assert retraining.same("kept", wanted[1], tmp_path) == []  # itself is none
    write_json(tmp_path / "both/t/model.json", {"task": "t", "part": {"union": []}, "hyper_parameters": hyper})
    parts = {"tasks": {"u": {}, "t": {"union": []}}}
    both = grid.Candidate("new.u", "reference", "u", part=parts, hyper=hyper, whole="new")
    assert retraining.same("new", both, tmp_path) == [tmp_path / "both"]


def test_the_end_of_a_log(tmp_path):
    (tmp_path / "x").write_text("\n".join(map(str, range(100))))
    assert log_format.tail(tmp_path / "x") == [str(i) for i in range(80, 100)]
    assert log_format.tail(tmp_path / "none") == ["(no log was written)"]


def test_environment_files_agree_with_the_lock():
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    locked = {(p["name"], p["version"]) for p in lock["package"] if "version" in p}
    requirements = [
        line for line in (ROOT / "envs/requirements.txt").read_text().splitlines() if not line.startswith("#")
    ]
    conda = yaml.safe_load((ROOT / "envs/mllm.yaml").read_text())
    assert conda["dependencies"][-1]["pip"] == requirements
    pins = {tuple(re.sub(r"\[.*\]", "", line.split(" ;")[0]).split("==")) for line in requirements}
    assert pins <= locked
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    direct = {re.split(r"[=<>~\[ ]", d)[0] for d in project["dependencies"]}
    assert direct <= {name for name, _ in pins}
    # The installed versions are the locked ones.
    for name in direct:
        assert (name, metadata.version(name).split("+")[0]) in pins
    # The lock names public sources only.
    assert set(re.findall(r"https://([^/\"]+)", (ROOT / "uv.lock").read_text())) == {
        "pypi.org",
        "files.pythonhosted.org",
    }


def test_every_script_explains_itself_quickly():
    for script in sorted(SCRIPTS.glob("*.py")):
        done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True)
        assert done.returncode == 0, script
        assert "--log" in done.stdout
        assert done.stdout.count("\n") > 5


def test_rules_scripts_and_logs_share_their_names():
    rules = "".join(p.read_text() for p in (ROOT / "workflow/rules").glob("*.smk"))
    names = set(re.findall(r"^ *rule (\w+):", rules, re.M)) | set(re.findall(r'several\("(\w+)"', rules))
    assert {s.stem for s in SCRIPTS.glob("*.py")} == names - {"report"} | {
        "compare_experiments"
    }  # it reads several experiments
    for name in names - {"report"}:
        # A rule has several scripts if data decide; a rule made in a loop has no name of its own.
        bodies = re.findall(rf"(?:rule {name}:|several\(\"{name}\")(.*?)(?=\n *rule |\n *rule:|\Z)", rules, re.S)
        assert any(f"scripts/{name}.py" in body for body in bodies), name
        assert all(re.search(rf"logs?[>/]+(?:{name}[./]|{{several\('{name}')", body) for body in bodies), name


def test_front_page_is_short():
    assert len((ROOT / "Snakefile").read_text().splitlines()) <= 60
    most = {True: 200, False: 300}  # scripts, modules
    sizes = {p: len(p.read_text().splitlines()) for p in SCRIPTS.rglob("*.py")}
    assert {p.name: n for p, n in sizes.items() if n > most[p.parent == SCRIPTS]} == {}


def test_no_markdown_on_the_terminal():
    text = "# demo: can it?\n\n- **Replace big, b\\*g? No.** 1 \\< 2\nmore `replicates` show it\n## Task a_b\n"
    assert (
        wording.without_markdown(text)
        == "demo: can it?\n\n- Replace big, b*g? No. 1 < 2\nmore replicates show it\nTask a_b\n"
    )
