"""Run the workflow on a real Slurm of four nodes, with everything that a cluster does to its jobs."""

import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from conftest import Project
from slurm_cluster import (
    COMMAND,
    EXPERTS,
    Cluster,
    Run,
    job_of,
    jobs,
    on_the_test_site,
    same_results,
    submissions,
    wait_for,
)


def test_battered(prepared: Project, undisturbed: Project, cluster: Cluster) -> None:
    """One run survives preemption, node death, scancel, time limit, slurmd and controller down; results are equal."""
    run = Run(prepared)
    run.training(*EXPERTS)
    where = {
        comment.removeprefix("rule_train_expert_wildcards_"): (i, n) for i, n, comment in jobs("%i %N %k", "RUNNING")
    }
    on = {node: [e for e in EXPERTS if where[e][1] == node] for node in ("g1", "g2")}
    assert len(on["g1"]) == len(on["g2"]) == 2, where

    # The time limit: a training that hangs.
    hanging, cancelled = on["g1"]
    subprocess.run(["scontrol", "update", f"jobid={where[hanging][0]}", "timelimit=1"], check=True)
    # scancel by hand.
    subprocess.run(["scancel", where[cancelled][0]], check=True)
    # A node dies with its jobs, and comes back.
    cluster.kill_node("g2")
    # A slurmd is restarted under its running jobs.
    cluster.kill("slurmd.g1")
    subprocess.run(["slurmd", "-N", "g1"], check=True)
    wait_for(
        lambda: (
            "g2" in subprocess.run(["sinfo", "-h", "-t", "down", "-o", "%N"], capture_output=True, text=True).stdout
        ),
        "g2 down",
    )
    cluster.start()
    # The controller is down for half a minute.
    cluster.kill("slurmctld", signal.SIGTERM)
    time.sleep(35)
    cluster.start()
    text = run.end()

    assert f"train_expert {cancelled} was cancelled" in text
    assert re.search(f"train_expert {hanging} ran out of time", text)
    assert "Slurm does not answer" in text
    with (prepared.folder / "results/faults/efficiency.csv").open() as file:
        rows = [line.split(",") for line in file]
    restarts = {row[1]: row[5] for row in rows[1:] if row[0] == "train_expert" and row[3] == "COMPLETED"}
    assert all(int(restarts[e]) >= 1 for e in on["g2"]), restarts  # the same Slurm jobs, requeued
    for expert in EXPERTS:
        assert "resuming from" in (prepared.folder / f"results/faults/logs/train_expert/{expert}.log").read_text()
    same_results(prepared, undisturbed)
    assert prepared.planned(*COMMAND) == Counter()
    assert not [row for row in rows if row[0] == "leaderboard"]  # tiny steps are no Slurm jobs
    assert len([row for row in rows if row[0] == "merge" and row[3] == "COMPLETED"]) == 2
    tables = prepared.folder / "results/faults/report/tables"
    assert "\nmerge,2,0," in (tables / "cluster.csv").read_text()
    assert "\nmerge,2," in (tables / "time.csv").read_text()


def test_from_nothing(cluster: Cluster, undisturbed: Project, tmp_path: Path) -> None:
    """Reviews, a base and a baseline made on the cluster have the same bytes as those made without it."""
    project = on_the_test_site(tmp_path / "project")
    targets = ["results/faults/models/base-sentiment", "results/faults/predictions/tfidf.parquet"]
    project.snakemake(*targets, *COMMAND)
    made = [f for f in (project.folder / "results/faults").rglob("*") if f.suffix in (".parquet", ".safetensors")]
    assert len(made) == 8
    for file in made:
        assert file.read_bytes() == (undisturbed.folder / file.relative_to(project.folder)).read_bytes(), file


def test_memory(prepared: Project, undisturbed: Project) -> None:
    """A job that exceeds its memory is killed, reported, and retried with twice the memory."""
    with (prepared.folder / "profiles/slurm/config.yaml").open("a") as file:
        file.write('set-resources:\n  predict: {mem_mb: "120 if attempt == 1 else 4000"}\n')
    text = Run(prepared, "results/faults/predictions/base-sentiment.parquet").end()
    assert "predict base-sentiment ran out of memory (120 MB requested)" in text
    path = "results/faults/predictions/base-sentiment.parquet"
    assert (prepared.folder / path).read_bytes() == (undisturbed.folder / path).read_bytes()


def test_preflight(prepared: Project) -> None:
    """Missing partitions and GPU types are all named together, before anything is submitted."""
    prepared.edit("profiles/slurm/config.yaml", "slurm_partition: low", "slurm_partition: lo")
    prepared.edit("profiles/slurm/config.yaml", "h100:80@gpu", "h900:80@gpu titan:12@gpu")
    refused = Run(prepared, "--slurm-array-jobs", "all")
    text = refused.end(ok=False, seconds=60)
    assert "(found 'all', expected nothing). Fix: remove the key" in text
    assert not submissions(refused)
    assert "partition 'lo' does not exist (expected one of gpu, gpu_pre, high, low)" in text
    assert "no GPU of type 'h900' in gpu (expected one of: a100, h100)" in text
    assert "GPU type 'titan' is too old for torch" in text
    doctor = [sys.executable, "profiles/doctor.py"]
    ill = subprocess.run(doctor, cwd=prepared.folder, capture_output=True, text=True)
    assert (
        ill.returncode
        and "✗ partitions and GPUs: partition 'lo' does not exist" in ill.stdout
        and "'h900'" in ill.stdout
    )
    prepared.edit("profiles/slurm/config.yaml", "slurm_partition: lo", "slurm_partition: low")
    prepared.edit("profiles/slurm/config.yaml", "h900:80@gpu titan:12@gpu", "h100:80@gpu")
    well = subprocess.run(doctor, cwd=prepared.folder, capture_output=True, text=True)
    assert well.returncode == 0 and "✓" in well.stdout, well.stdout + well.stderr


def test_two_gpus(prepared: Project) -> None:
    """A model with `gpus: 2` is trained by two processes that share one node's GPUs: one task, two GPUs."""
    prepared.edit("config/faults.yaml", "max_length: 48", "max_length: 48, gpus: 2")
    prepared.edit("config/faults.yaml", "steps: 300", "steps: 20")
    Run(prepared, "results/faults/models/shard-0").end()
    shown = subprocess.run(["scontrol", "show", "job", job_of("shard-0", "COMPLETED")], capture_output=True, text=True)
    assert {"NumNodes=1", "NumTasks=1", "NumCPUs=2", "TresPerJob=gres:gpu:2"} <= set(shown.stdout.split())
    card = json.loads((prepared.folder / "results/faults/models/shard-0/model.json").read_text())
    assert card["processes"] == 2


def test_failure_in_words(prepared: Project) -> None:
    """A failing script's last lines are shown, with exit status, node and log; other jobs continue."""
    model = prepared.folder / "results/faults/models/base-sentiment/config.json"
    facts = json.loads(model.read_text())
    facts["id2label"] = dict(zip(facts["id2label"], reversed(facts["id2label"].values()), strict=True))
    model.write_text(json.dumps(facts))
    text = Run(prepared, "results/faults/predictions/base-sentiment.parquet", "--retries", "0").end(ok=False)
    assert re.search(r"predict base-sentiment failed \(exit status 1\) on g\d: Slurm job \d+\.", text)
    assert "end of results/faults/logs/predict/base-sentiment.log" in text


def test_no_job_is_lost_silently(prepared: Project) -> None:
    """A failure around a submission is the job's error, in one message; failed bookkeeping costs one line."""
    record = prepared.folder / "results/faults/slurm/predict"
    record.parent.mkdir()
    record.write_text("a file where the folder of the records should be")
    (prepared.folder / "results/faults/efficiency.csv").mkdir()
    target = "results/faults/predictions/base-sentiment.parquet"
    text = Run(prepared, target, "--retries", "0").end(ok=False, seconds=60)
    assert text.count("predict: not submitted: ") == 1 and "results/faults/slurm/predict" in text
    assert not jobs()
    record.unlink()
    text = Run(prepared, target).end()
    assert "its resource usage was not written" in text
    assert (prepared.folder / target).exists()
