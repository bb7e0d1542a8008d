"""Test the Slurm executor's decisions without Slurm: submissions, looks at the queue, groups' resources."""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from mllm.execution import jobstep, slurm_plugin, slurm_resources
from mllm.execution.slurm_tasks import VANISHED, Member, Task, Watch, plan, record_of


@pytest.fixture
def at(tmp_path, monkeypatch) -> Path:
    """Use an empty working directory; results/x/slurm is the records' folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "node"))
    monkeypatch.setenv("MLLM_COLD", "1")
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "results/x/slurm").mkdir(parents=True)
    (tmp_path / "node").mkdir()
    (tmp_path / "ran").touch()
    (tmp_path / "where").touch()
    (tmp_path / "results/x/experts").write_text("trained")
    os.utime(tmp_path / "results/x/experts", (1, 1))
    return tmp_path


FOLDER = Path("results/x/slurm")


def point(name: str, command: str = "true", shared: bool = False) -> list[Member]:
    """Return a merge whose weights stay on the node, and its prediction."""
    at = f"results/x/merges/{name}"
    merge = Member(
        f"merge/{name}", "merge", name, f"m-{name}",
        f"mkdir -p {at}/model; cat results/x/experts > {at}/model/w; echo {name} > {at}/card; echo m-{name} >> ran",
        ["results/x/experts"], [f"{at}/card", f"{at}/model"], [] if shared else [f"{at}/model"],
    )  # fmt: skip
    predict = Member(
        f"predict/{name}", "predict", name, f"p-{name}",
        f"{command}; cat {at}/model/w > results/x/predictions/{name}; readlink -f {at}/model > where; echo p-{name} >> ran",
        [], [f"results/x/predictions/{name}"], needs=[0],
    )  # fmt: skip
    return [merge, predict]


def group(*points: list[Member]) -> list[Member]:
    members: list[Member] = []
    for two in points:
        members += [two[0], Member(**{**asdict(two[1]), "needs": [len(members)]})]
    return members


def run_step(members: list[Member], todo: list[int] | None = None) -> int:
    """Start the job step as Slurm does."""
    todo = list(range(len(members))) if todo is None else todo
    path = FOLDER / "group/g.json"
    path.parent.mkdir(exist_ok=True)
    record = record_of(members, todo, "run", "comment")
    path.write_text(json.dumps(record))
    return subprocess.run([sys.executable, "-I", jobstep.__file__, path, record["key"]], check=False).returncode


def ran() -> list[str]:
    found = Path("ran").read_text().split()
    Path("ran").write_text("")
    return found


def orphan(members: list[Member], state: str = "RUNNING", slurm_id: str = "3", submitted: float = 0) -> dict:
    record = record_of(members, list(range(len(members))), "run", "comment")
    return {**record, "submitted": submitted or time.time(), "slurm_id": slurm_id, "state": state}


def test_a_group_runs_in_turn_and_its_weights_stay_on_the_node(at):
    members = group(point("a"), point("b"))
    assert run_step(members) == 0
    assert ran() == ["m-a", "p-a", "m-b", "p-b"]
    assert Path("results/x/predictions/a").read_text() == "trained"
    assert Path("results/x/merges/a/card").read_text() == "a\n"
    assert not Path("results/x/merges/a/model").exists()  # never there
    assert Path("where").read_text().startswith(str(at / "node"))
    assert list((at / "node").iterdir()) == []
    usage = members[1].usage(FOLDER, ["7"])
    assert usage and usage["status"] == 0 and usage["peak_mb"] > 0
    assert plan(members, FOLDER, []) == plan(members, FOLDER, [])
    assert plan(members, FOLDER, []).todo == []


def test_what_finished_is_kept_and_a_failed_member_stops_only_what_needs_it(at):
    members = group(point("a", "exit 3"), point("b"))
    assert run_step(members) == 3
    assert ran() == ["m-a", "m-b", "p-b"]
    planned = plan(members, FOLDER, [])
    assert planned.todo == [0, 1]  # the prediction, and the merge whose weights were lost with the allocation
    # A requeued allocation itself makes the same decision.
    again = group(point("a"), point("b"))
    assert run_step(again) == 0
    assert ran() == ["m-a", "p-a"]


def test_weights_that_others_read_are_shared_and_not_made_again(at):
    members = group(point("a", "exit 3", shared=True), point("b", shared=True))
    assert run_step(members) == 3
    assert ran() == ["m-a", "m-b", "p-b"]
    assert Path("results/x/merges/a/model/w").exists()
    assert plan(members, FOLDER, []).todo == [1]


@pytest.mark.parametrize("change", ["input", "output", "command"])
def test_what_changed_is_done_again(at, change):
    members = group(point("a"), point("b"))
    assert run_step(members) == 0
    if change == "input":
        later = time.time() + 10
        os.utime("results/x/experts", (later, later))
    elif change == "output":
        Path("results/x/predictions/a").unlink()
    else:
        members[1] = Member(**{**asdict(members[1]), "key": "other"})
    assert plan(members, FOLDER, []).todo == ([0, 1, 2, 3] if change == "input" else [0, 1])


def test_living_allocations_are_taken_over_whatever_groups_are_now(at):
    a, b, c = point("a"), point("b"), point("c")
    orphans = [orphan(group(a, b), slurm_id="3"), orphan(group(c), slurm_id="4")]
    planned = plan(group(b, c), FOLDER, orphans)  # parts of two earlier groups
    assert (planned.todo, planned.live, planned.cancel) == ([], ["3", "4"], [])
    planned = plan(group(a, point("d")), FOLDER, orphans)  # part of one, and a new one
    assert (planned.todo, planned.live) == ([2, 3], ["3"])
    # Another result is wanted in the same place: the allocation is cancelled, and its unfinished members are submitted.
    changed = [a[0], Member(**{**asdict(a[1]), "key": "other"})]
    planned = plan(group(changed, b), FOLDER, orphans)
    assert (planned.todo, planned.cancel) == ([0, 1, 2, 3], ["3"])
    assert plan(group(a), FOLDER, [orphan(group(a), "FAILED")]).todo == [0, 1]
    assert plan(group(a), FOLDER, [orphan(group(a), submitted=0.5)]).cancel == ["3"]  # an input is newer


def test_a_task_s_outcome(at):
    members = group(point("a"), point("b"))
    task = Task([], members, [0, 1, 2, 3], FOLDER / "group/g.json", ["7"], {"7": "RUNNING"})
    assert task.outcome(FOLDER) == "running"
    task.states["7"] = "TIMEOUT"
    assert (task.outcome(FOLDER), task.worst()) == ("failed", "TIMEOUT")
    assert task.failing([{"status": 0}, None, None, None]) == [1]
    assert task.failing([{"status": 0}, {"status": 2}, {"status": 0}, None]) == [1]
    task.states["7"] = "COMPLETED"
    assert task.outcome(FOLDER) == "done"
    # An earlier run's allocation has finished the wanted members, and runs others.
    assert run_step(members) == 0
    adopted = Task([], members[:2], [], FOLDER / "group/g.json", ["7"], {"7": "RUNNING"})
    assert adopted.outcome(FOLDER) == "done"


def test_what_a_look_at_the_queue_means():
    watch = Watch()
    nothing = lambda: None  # noqa: E731
    row = {"state": "PENDING", "reason": "job requeued in held state"}
    assert watch.state("1", {"state": "RUNNING", "reason": ""}, nothing, 0) == ("RUNNING", "")
    assert [watch.state("1", row, nothing, 1) for _ in range(3)] == [
        ("PENDING", "release"), ("PENDING", "release"), ("BOOT_FAIL", "cancel"),
    ]  # fmt: skip
    assert watch.state("2", None, lambda: {"status": 0}, 0) == ("COMPLETED", "")
    assert watch.state("2", None, lambda: {"status": 1}, 0) == ("FAILED", "")
    assert watch.state("2", None, nothing, 0) == ("PENDING", "")  # not listed yet
    assert watch.state("2", None, nothing, VANISHED + 1) == ("VANISHED", "")
    looks = [watch.next_look(False) for _ in range(10)]
    assert looks[0] < looks[3] < looks[-1] == 15 and watch.next_look(True) == 1


def test_a_group_asks_for_the_largest_of_each_and_for_all_the_time():
    merge = {"mem_mb": 3000, "runtime": 16, "_cores": 1, "slurm_partition": "low", "gpu": 0, "gpu_mb": 0}
    site = {slurm_resources.TYPES: "A5000:24@b A100:40@a"}
    small = slurm_resources.choose_gpu({**merge, **site, "gpu": 1, "gpu_mb": 9000})
    large = slurm_resources.choose_gpu({**merge, **site, "gpu": 1, "gpu_mb": 30_000, "runtime": 31, "mem_mb": 5000})
    asked = slurm_resources.in_turn([{**merge, **site}, small, {**merge, **site}, large])
    assert (asked["mem_mb"], asked["_cores"], asked["runtime"]) == (5000, 1, 31 + 3)
    assert (asked["gpu"], asked["gpu_model"], asked["slurm_partition"]) == (1, "A100", "a")
    assert slurm_resources.in_turn([merge, merge])["slurm_partition"] == "low"
    with pytest.raises(slurm_resources.WorkflowError, match="different slurm_partition: high, low"):
        slurm_resources.in_turn([merge, {**merge, "slurm_partition": "high"}])


def test_the_plugin_still_has_the_names_that_the_executor_needs(monkeypatch):
    assert slurm_plugin.problems() == [], "adapt mllm/execution/slurm_plugin.py to this release of the plugin"
    monkeypatch.delattr(slurm_plugin.Plugin, "_report_job_error_threadsafe")
    (problem,) = slurm_plugin.problems()
    assert "has no _report_job_error_threadsafe. Fix: adapt mllm.execution.slurm_plugin" in problem


def test_snakemake_still_has_what_groups_are_changed_by():
    import snakemake.api  # noqa: F401  before its parts, which import each other
    from snakemake import dag
    from snakemake.jobs import GroupJob
    from snakemake.rules import Rule

    for where, name in ((Rule, "expand_resources"), (GroupJob, "resources"), (GroupJob, "postprocess"), (dag, "group_into_chunks")):  # fmt: skip
        assert hasattr(where, name), f"adapt mllm/execution/snakemake_patches.py: {where} has no {name}"
