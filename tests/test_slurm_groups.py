"""Run groups of jobs in one allocation of a real Slurm, with everything that a cluster does to them."""

import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

from conftest import ROOT
from slurm_cluster import Cluster, jobs, wait_for

GROUPED = """
import sys
sys.path.insert(0, {scripts!r})
from mllm.execution import slurm_executor
slurm_executor.install("results/x")
rule all:
    input: expand("results/x/predictions/{{i}}", i=range(4))
rule merge:
    output: card="results/x/merges/{{i}}/card", model=temp(directory("results/x/merges/{{i}}/model"))
    resources: mem_mb=100, runtime=5
    shell: "mkdir -p {{output.model}}; echo {{wildcards.i}} > {{output.model}}/w; touch {{output.card}}; echo m{{wildcards.i}} >> {at}/ran"
rule predict:
    input: rules.merge.output.model
    output: "results/x/predictions/{{i}}"
    benchmark: "results/x/benchmarks/{{i}}.tsv"
    resources: mem_mb=lambda wildcards, attempt: 200 * attempt, runtime=5
    shell: "while [ -e {at}/hold-{{wildcards.i}} ]; do sleep 0.1; done; [ ! -e {at}/fail-{{wildcards.i}} ];"
        " [ ! -e {at}/greedy-{{wildcards.i}} ] || {python} -IS -c 'import time; x = bytearray(300 << 20); time.sleep(6)';"
        " cat {{input}}/w > {{output}}; echo p{{wildcards.i}} >> {at}/ran"
"""


class Grouped:
    """Run four merges with temporary weights and their predictions in one allocation; without torch, to be fast."""

    def __init__(self, at: Path, partition: str = "low"):
        at.mkdir()
        (at / "Snakefile").write_text(
            GROUPED.format(scripts=str(ROOT / "workflow/scripts"), at=at, python=sys.executable)
        )
        self.at, self.partition = at, partition
        self.logs: list[Path] = []

    def start(self) -> subprocess.Popen[bytes]:
        self.logs.append(self.at / f"run-{len(self.logs)}.log")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "snakemake", "--executor", "slurm", "--jobs", "10", "--groups", "merge=point",
             "predict=point", "--group-components", "point=4", "--retries", "1", "--slurm-requeue", "--keep-going",
             "--rerun-incomplete", "--latency-wait", "20", "--default-resources", f"slurm_partition={self.partition}"],
            cwd=self.at, stdout=self.logs[-1].open("w"), stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        return self.process

    def hold(self, i: int) -> None:
        (self.at / f"hold-{i}").touch()

    def go_on(self) -> None:
        for file in self.at.glob("hold-*"):
            file.unlink()

    @property
    def ran(self) -> Counter[str]:
        return Counter((self.at / "ran").read_text().split()) if (self.at / "ran").exists() else Counter()

    @property
    def text(self) -> str:
        return "".join(log.read_text() for log in self.logs)

    @property
    def slurm_ids(self) -> list[str]:
        return re.findall(r"submitted with SLURM jobid (\d+)", self.text)

    def held(self) -> None:
        """Wait until two points are done and the third's prediction runs."""
        wait_for(lambda: self.ran["m2"] == 1 or self.process.poll() is not None, "the third merge")
        assert self.ran["m2"] == 1, self.text[-5000:]

    def ended(self, status: int) -> None:
        assert status == 0, self.text[-5000:]
        for i in range(4):
            assert (self.at / f"results/x/predictions/{i}").read_text() == f"{i}\n"
            assert not (self.at / f"results/x/merges/{i}/model").exists()
            assert (self.at / f"results/x/merges/{i}/card").exists()


def test_groups_with_every_fault(cluster: Cluster, tmp_path: Path) -> None:
    """A group's allocation is requeued, cancelled, loses its node, its Snakemake, a member: nothing finished runs twice."""
    faults = {name: Grouped(tmp_path / name) for name in ("requeued", "cancelled", "orphaned", "failing")}
    faults["node"] = Grouped(tmp_path / "node", "gpu")
    for run in faults.values():
        run.hold(2)
    (faults["failing"].at / "fail-1").touch()
    running = {name: run.start() for name, run in faults.items()}
    try:
        for run in faults.values():
            run.held()
        nodes = dict(jobs("%i %N", "RUNNING"))
        subprocess.run(["scontrol", "requeue", faults["requeued"].slurm_ids[0]], check=True)
        subprocess.run(["scancel", faults["cancelled"].slurm_ids[0]], check=True)
        cluster.kill_node(nodes[faults["node"].slurm_ids[0]])
        running["orphaned"].kill()
        running["orphaned"].wait()
        for lock in (faults["orphaned"].at / ".snakemake/locks").glob("*"):
            lock.unlink()
        running["orphaned"] = faults["orphaned"].start()
        orphaned = faults["orphaned"]
        wait_for(lambda: "is taken over" in orphaned.text, f"the taking over\n{orphaned.text}")
        (faults["failing"].at / "fail-1").unlink()  # its next attempt succeeds
        for name in ("requeued", "cancelled", "node"):  # the third merge is rerun: its weights were lost with the node
            wait_for(
                lambda run=faults[name]: run.ran["m2"] == 2, f"the second start\n{name} {faults[name].text[-3000:]}"
            )
        cluster.start()
        for name, run in faults.items():
            run.go_on()
            run.ended(running[name].wait(timeout=120))
    finally:
        for process in running.values():
            process.kill()
    once = {f"{kind}{i}": 1 for kind in "mp" for i in range(4)}
    assert faults["orphaned"].ran == once and len(faults["orphaned"].slurm_ids) == 1
    assert faults["requeued"].ran == {**once, "m2": 2} and len(faults["requeued"].slurm_ids) == 1
    assert faults["node"].ran == {**once, "m2": 2} and len(faults["node"].slurm_ids) == 1
    assert faults["cancelled"].ran == {**once, "m2": 2} and len(faults["cancelled"].slurm_ids) == 2
    assert faults["failing"].ran == {**once, "m1": 2} and len(faults["failing"].slurm_ids) == 2
    assert "predict 2 was cancelled" in faults["cancelled"].text
    assert "predict 1 failed (exit status 1)" in faults["failing"].text
    assert "7 of the group's 8 jobs finished; their results are kept" in faults["failing"].text
    table = (faults["failing"].at / "results/x/efficiency.csv").read_text().splitlines()
    assert len([line for line in table if line.startswith("predict,3,")]) == 1
    assert len(list((faults["orphaned"].at / "results/x/benchmarks").iterdir())) == 4


def test_groups_with_every_other_fault(cluster: Cluster, tmp_path: Path) -> None:
    """A group is preempted, runs out of time, memory and disk, is interrupted, terminated; daemons restart under it."""
    faults = {name: Grouped(tmp_path / name) for name in ("time", "memory", "disk", "interrupted", "terminated")}
    faults["preempted"] = Grouped(tmp_path / "preempted", "gpu_pre")
    for run in faults.values():
        run.hold(2)
    (faults["memory"].at / "greedy-1").touch()
    disk = faults["disk"].at / "results/x/predictions"
    disk.mkdir(parents=True)
    small = ["mount", "-t", "tmpfs", "-o", "size=8k", "none", disk]  # two predictions
    if subprocess.run(small, capture_output=True).returncode:
        faults.pop("disk")  # no right to mount
    running = {name: run.start() for name, run in faults.items()}
    try:
        for name in faults.keys() - {"memory"}:
            faults[name].held()
        where = dict(jobs("%i %N", "RUNNING"))
        ids = {name: run.slurm_ids[0] for name, run in faults.items()}
        subprocess.run(["scontrol", "update", f"jobid={ids['time']}", "timelimit=1"], check=True)
        subprocess.run(
            ["sbatch", "-p", "gpu", "-w", where[ids["preempted"]], "--exclusive", "--output=/dev/null", "--wrap=sleep 1"],
            check=True, capture_output=True,
        )  # fmt: skip
        running["interrupted"].send_signal(signal.SIGINT)
        running["terminated"].send_signal(signal.SIGTERM)
        cluster.kill(f"slurmd.{where[ids['terminated']]}")
        cluster.kill("slurmctld", signal.SIGTERM)
        cluster.start()
        running["interrupted"].wait(timeout=60)
        running["interrupted"] = faults["interrupted"].start()
        faults["terminated"].go_on()
        running["terminated"].wait(timeout=60)
        if "disk" in faults:
            faults["disk"].go_on()
            assert running["disk"].wait(timeout=120)
            subprocess.run(["mount", "-o", "remount,size=100m", disk], check=True)
            running["disk"] = faults["disk"].start()
        wait_for(
            lambda: faults["memory"].ran["m2"] == 1 and "out of memory" in faults["memory"].text, "the memory limit"
        )
        (faults["memory"].at / "greedy-1").unlink()
        for name in ("preempted", "interrupted", "time"):
            wait_for(
                lambda run=faults[name]: run.ran["m2"] == 2, f"the second start\n{name} {faults[name].text[-3000:]}"
            )
        for name, run in faults.items():
            run.go_on()
            run.ended(0 if name == "terminated" else running[name].wait(timeout=120))
    finally:
        for process in running.values():
            process.kill()
        subprocess.run(["umount", disk], capture_output=True, check=False)
    once = {f"{kind}{i}": 1 for kind in "mp" for i in range(4)}
    again = {name: {**once, "m2": 2} for name in ("preempted", "interrupted", "time")}
    expected = {**again, "memory": {**once, "m1": 2}, "terminated": once, "disk": {**once, "m2": 3, "m3": 3}}
    assert {name: dict(run.ran) for name, run in faults.items()} == {name: expected[name] for name in faults}
    submitted = {name: len(run.slurm_ids) for name, run in faults.items()}
    assert submitted["preempted"] == submitted["terminated"] == 1 and submitted["time"] == submitted["memory"] == 2
    assert "predict 2 ran out of time" in faults["time"].text
    assert "predict 1 ran out of memory (200 MB requested)" in faults["memory"].text
