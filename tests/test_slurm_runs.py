"""Preempt, kill, interrupt and restart runs on a real Slurm: no finished job is lost or rerun."""

import re
import signal
import subprocess

import pytest

from conftest import Project
from slurm_cluster import EXPERTS, FEW, TRAINED, Run, job_of, jobs, processes, same_results, send, submissions, wait_for


def test_preempted(prepared: Project, undisturbed: Project) -> None:
    """A job of higher priority takes the node: trainings are requeued, resume from checkpoints, and end the same."""
    prepared.edit("profiles/slurm/config.yaml", "any:40@gpu ", "any:40@gpu_pre ")
    run = Run(prepared, "experts")
    run.training(*EXPERTS)
    there = [c.removeprefix("rule_train_expert_wildcards_") for n, c in jobs("%N %k", "RUNNING") if n == "g1"]
    assert there
    subprocess.run(
        ["sbatch", "-p", "gpu", "-w", "g1", "--exclusive", "--gpus=2", "--output=/dev/null", "--wrap=sleep 2"],
        check=True,
    )
    wait_for(lambda: not any(job_of(e) for e in there), "the preemption")
    run.go_on()
    text = run.end()
    assert "FAILED" not in text
    assert max(submissions(run).values()) == 1
    for expert in there:
        assert "resuming from" in (prepared.folder / f"results/faults/logs/train_expert/{expert}.log").read_text()
    same_results(prepared, undisturbed, EXPERTS)
    # A prediction, requeued while it runs: it restarts, and predicts the same.
    target = "results/faults/predictions/shard-0.parquet"
    second = Run(prepared, target)
    predicting = lambda: [i for i, c in jobs("%i %k", "RUNNING") if c.endswith("predict_wildcards_shard-0")]  # noqa: E731
    wait_for(lambda: predicting() and processes(predicting()[0]), "the prediction")
    id_ = predicting()[0]
    send(signal.SIGSTOP, id_)
    subprocess.run(["scontrol", "requeue", id_], check=True)
    second.end()
    assert sum(submissions(second).values()) == 1
    assert (prepared.folder / target).read_bytes() == (undisturbed.folder / target).read_bytes()


def test_killed_snakemake(prepared: Project, undisturbed: Project) -> None:
    """SIGKILL: the lock is removed, running and finished jobs are taken over, none is submitted twice."""
    first = Run(prepared, *TRAINED)
    first.training(*FEW)
    first.process.kill()
    first.process.wait()
    running = [job_of(e) for e in FEW]
    assert all(running)
    second = Run(prepared, *TRAINED)  # takes over running jobs, and is killed as well
    second.says(lambda: second.text.count("is taken over") == 2)
    second.process.kill()
    second.process.wait()
    first.go_on()
    wait_for(lambda: not any(job_of(e) for e in FEW), "the trainings' end")
    third = Run(prepared, *TRAINED)  # finds them finished
    text = third.end()
    assert "was killed; its lock is removed" in second.text and "was killed; its lock is removed" in text
    assert [i for i in running if f"Slurm job {i} of an earlier run is taken over" not in text] == []
    counts = submissions(first, second, third)
    assert max(counts.values()) == 1 and sum("train_expert" in k for k in counts) == 2
    same_results(prepared, undisturbed, FEW)


def test_orphans_cancelled(prepared: Project) -> None:
    """With MLLM_ORPHANS=cancel the earlier run's jobs are cancelled first; changed jobs are not taken over."""
    first = Run(prepared, *TRAINED)
    first.training("shard-0")
    first.process.kill()
    first.process.wait()
    old = [i for i, _ in jobs("%i %k", "RUNNING", "PENDING")]
    assert old
    second = Run(prepared, *TRAINED, MLLM_ORPHANS="cancel")
    second.says(lambda: re.search(r"Cancelled \d+ jobs? of an earlier run", second.text))
    assert not {i for i, _ in jobs("%i %k", "RUNNING", "PENDING")} & set(old)
    second.training("shard-0")
    second.process.kill()
    second.process.wait()
    # With another learning rate, these trainings are no longer wanted.
    old = [i for i, _ in jobs("%i %k", "RUNNING", "PENDING")]
    prepared.edit("config/faults.yaml", "1.0e-3}", "2.0e-3}")
    third = Run(prepared, *TRAINED)
    third.says(lambda: submissions(third).total() >= 2)
    assert "is taken over" not in third.text
    assert not {i for i, _ in jobs("%i %k", "RUNNING", "PENDING")} & set(old)
    third.process.send_signal(signal.SIGINT)
    third.process.wait(timeout=60)
    wait_for(lambda: not jobs("%i %k", "RUNNING", "PENDING", "COMPLETING"), "an empty queue")


def test_interrupted_and_terminated(prepared: Project, undisturbed: Project) -> None:
    """SIGINT cancels the jobs, SIGTERM waits for them; the same command resumes both. A second run is refused."""
    first = Run(prepared, *TRAINED)
    first.training("shard-0")
    first.process.send_signal(signal.SIGINT)
    first.process.wait(timeout=60)
    wait_for(lambda: not jobs("%i %k", "RUNNING", "PENDING", "COMPLETING"), "an empty queue", 60)
    second = Run(prepared, *TRAINED)
    second.training(*FEW)
    ids = [job_of(e) for e in FEW]
    assert all(ids)
    # A second run in the same folder is refused, names the first run's owner, and disturbs nothing.
    refused = Run(prepared, *TRAINED).end(ok=False, seconds=60)
    assert f"(process {second.process.pid} on " in refused and "uses this folder" in refused
    second.process.send_signal(signal.SIGTERM)
    second.go_on()
    second.process.wait(timeout=200)
    assert not set(ids) & {i for i, _ in jobs("%i %k", "CANCELLED")}
    third = Run(prepared, *TRAINED)
    third.end()
    assert not [k for k in submissions(third) if "train_expert" in k]
    same_results(prepared, undisturbed, FEW)


def test_full_disk(prepared: Project, undisturbed: Project) -> None:
    """A full disk fails jobs with a message; with free space, the same command ends with the same results."""
    predictions = prepared.folder / "results/faults/predictions"
    predictions.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4k", "none", predictions], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk here: {mounted.stderr.strip()}")
    target = "results/faults/predictions/base-sentiment.parquet"
    (predictions / ".keep").touch()  # an empty folder would be deleted
    try:
        text = Run(prepared, target, "--retries", "0").end(ok=False)
        assert "the disk is full" in text
        assert not (prepared.folder / target).exists()
        subprocess.run(["mount", "-o", "remount,size=100m", predictions], check=True)
        Run(prepared, target).end()
        assert (prepared.folder / target).read_bytes() == (undisturbed.folder / target).read_bytes()
    finally:
        subprocess.run(["umount", predictions], check=False)
