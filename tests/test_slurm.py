"""The workflow on a real Slurm: four nodes on this machine (tests/slurm), and everything that a cluster does to a run."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from filelock import FileLock

from conftest import ROOT, Project, fresh
from mllm.execution.run_lock import born

EXPERIMENT = """
name: faults
seed: 5
data: {source: synthetic, rows: 1500, conditions: 3}
split: {mode: official-clean, valid: 0.2}
tasks: [{name: sentiment, label: sentiment}]
models:
  - {name: tiny, family: classifier, source: scratch, architecture: gpt2, width: 32, layers: 1, heads: 2, vocabulary: 600,
     max_length: 48, pretrain: {steps: 20, batch_size: 16, learning_rate: 2.0e-3}}
base: tiny
experts:
  - {name: shard, parts: 4, steps: 300, batch_size: 32, learning_rate: 1.0e-3}
merges:
  - {method: linear, members: [shard-*]}
  - {method: ties, members: [shard-*], density: 0.5}
references: [{name: tfidf, model: tfidf}]
compare: {metric: macro_f1, margin: 0.01}
keep: all
"""
EXPERTS = [f"shard-{i}" for i in range(4)]
FEW = EXPERTS[:2]  # enough where nothing depends on how many there are
TRAINED = [f"results/faults/models/{e}" for e in FEW]
COMMAND = ["--profile", "slurm", "--configfile", "config/faults.yaml"]
LOST = {f"{name}_proxy": "http://127.0.0.1:9" for name in ("http", "https", "all")}


def wait_for(condition: Callable[[], object], what: str, seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"gave up waiting for {what}\n{squeue('%i %j %T %r %N %k')}"
        time.sleep(0.3)


def squeue(form: str) -> str:
    done = subprocess.run(["squeue", "-h", "--states=all", "-o", form], capture_output=True, text=True)
    return done.stdout


class Cluster:
    """The test cluster's daemons."""

    def __init__(self, folder: Path):
        self.folder = folder

    def start(self) -> None:
        subprocess.run([ROOT / "tests/slurm/start.sh", self.folder], check=True, timeout=120)

    def stop(self) -> None:
        subprocess.run([ROOT / "tests/slurm/stop.sh", self.folder], check=False, timeout=120)

    def kill(self, daemon: str, how: signal.Signals = signal.SIGKILL) -> None:
        """A signal to a daemon and nothing else."""
        file = self.folder / f"{daemon}.pid"
        pid = int(file.read_text())
        os.kill(pid, how)
        wait_for(lambda: born(pid) is None, f"the end of {daemon}", 60)
        file.unlink(missing_ok=True)

    def kill_node(self, node: str) -> None:
        """All processes of a node at once: its daemon, its steps, their jobs."""
        there = [id_ for id_, where in jobs("%i %N", "RUNNING") if where == node]
        self.kill(f"slurmd.{node}")
        for id_ in there:  # the step's daemon before its job, so that nobody reports the end
            subprocess.run(["pkill", "-KILL", "-f", rf"slurmstepd: \[{id_}\."], check=False)
            for pid in processes(id_):
                os.kill(pid, signal.SIGKILL)


def jobs(form: str = "%i %k", *states: str) -> list[list[str]]:
    """Fields of the jobs that are in one of the states; all of them where none is named."""
    rows = [line.split("|") for line in squeue("%T|" + form.replace(" ", "|")).splitlines()]
    return [row[1:] for row in rows if not states or row[0] in states]


def job_of(expert: str, state: str = "RUNNING") -> str:
    """Slurm's number of an expert's training."""
    for id_, comment in jobs("%i %k", state):
        if comment == f"rule_train_expert_wildcards_{expert}":
            return id_
    return ""


def processes(id_: str) -> list[int]:
    """A Slurm job's processes below its step daemon."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"SLURM_JOB_ID={id_}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def send(how: signal.Signals, id_: str) -> None:
    """A signal to all processes of a Slurm job."""
    for pid in processes(id_) if id_ else []:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, how)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster of its own for each test: it starts in a second, and what one test broke no other meets."""
    missing = [p for p in ("slurmctld", "slurmd", "munged", "sbatch") if not shutil.which(p)]
    if missing or os.geteuid() != 0:
        pytest.skip(
            f"no Slurm here: {', '.join(missing) or 'not root'} (apt install slurmctld slurmd slurm-client munge)"
        )
    made = Cluster(tmp_path / "slurm")
    with FileLock(Path(tempfile.gettempdir(), "mllm-test-slurm.lock")):  # two of them would want the same ports
        made.start()
        yield made
        while Run.started:
            Run.started.pop().process.kill()
        made.stop()


def on_the_test_site(target: Path) -> Project:
    """The project with the profile's site part replaced, and the experiment of these tests."""
    project = fresh(target)
    profile = target / "profiles/slurm/config.yaml"
    text = profile.read_text()
    site = (target / "tests/slurm/site.yaml").read_text()
    start, end = text.index("# ── The site"), text.index("# ── End of the site")
    profile.write_text(text[:start] + site + text[end:])
    (target / "config/faults.yaml").write_text(EXPERIMENT)
    return project


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The experiment run on this machine alone, in a network namespace with no network at all."""
    project = on_the_test_site(tmp_path_factory.mktemp("undisturbed") / "project")
    alone = ["unshare", "--net"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*alone, sys.executable, "-m", "snakemake", "--profile", "profiles/local", "--configfile", "config/faults.yaml"],
        cwd=project.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:]
    return project


@pytest.fixture
def prepared(undisturbed: Project, cluster: Cluster, tmp_path: Path) -> Project:
    """Data, base and baseline made; experts, merges and what follows still to do."""
    project = undisturbed.copy(tmp_path / "project")
    results = project.folder / "results/faults"
    for path in ["merges", "scores", "predictions", "winners", "experiment.yaml", *(f"models/{e}" for e in EXPERTS)]:
        if (results / path).is_dir():
            shutil.rmtree(results / path)
        else:
            (results / path).unlink(missing_ok=True)
    for file in results.glob("*.*"):
        file.unlink()
    return project


class Run:
    """Snakemake in the background."""

    started: ClassVar[list["Run"]] = []

    def __init__(self, project: Project, *arguments: str, **environment: str):
        self.project = project
        self.log = project.folder / f"run-{time.time_ns()}.log"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "snakemake", *arguments, *COMMAND],
            cwd=project.folder, stdout=self.log.open("w"), stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, **LOST, "MLLM_CHECKPOINT_SECONDS": "0.2", **environment},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip

        self.started.append(self)

    @property
    def text(self) -> str:
        return self.log.read_text()

    def end(self, ok: bool = True, seconds: float = 400) -> str:
        status = self.process.wait(timeout=seconds)
        assert (status == 0) == ok, self.text[-6000:]
        return self.text

    def says(self, condition: Callable[[], bool]) -> None:
        """Wait for something in its output."""
        wait_for(lambda: condition() or self.process.poll() is not None, "a message")
        assert condition(), self.text[-6000:]

    def training(self, *experts: str) -> None:
        """Wait until each of these trainings has a checkpoint to go on from, and hold it there (until `go_on`).

        However slow or fast the machine is, what a test does next then meets all of them at work.
        """
        folder = self.project.folder / "results/faults/checkpoints"
        self.held: set[str] = set()

        def all_held() -> bool:
            for expert in set(experts) - self.held:
                id_ = job_of(expert)
                if id_ and list((folder / expert).glob("*/checkpoint-*/whole")):
                    send(signal.SIGSTOP, id_)
                    self.held.add(expert)
            return self.process.poll() is not None or self.held == set(experts)

        wait_for(all_held, "checkpoints of " + ", ".join(experts))
        assert self.process.poll() is None, self.text[-6000:]

    def go_on(self) -> None:
        """Let held trainings run, wherever they still are."""
        for expert in self.held:
            send(signal.SIGCONT, job_of(expert))


def same_results(project: Project, reference: Project, only: Sequence[str] = ()) -> None:
    """All weights, predictions and scores, byte for byte; or the weights of some models alone."""

    def files(root: Path) -> dict[str, bytes]:
        found = {}
        for pattern in ("models/*/*.safetensors", "merges/*/model/*.safetensors", "predictions/*.parquet",
                        "scores/*.json", "comparisons.csv"):  # fmt: skip
            for path in sorted((root / "results/faults").glob(pattern)):
                found[str(path.relative_to(root))] = path.read_bytes()
        return found

    ours, theirs = files(project.folder), files(reference.folder)
    if only:
        ours, theirs = ({k: v for k, v in found.items() if Path(k).parent.name in only} for found in (ours, theirs))
    assert set(ours) == set(theirs) and len(ours) >= (len(only) or 20)
    assert [name for name in ours if ours[name] != theirs[name]] == []


def submissions(*logs: Run) -> Counter[str]:
    """Log directory of Slurm -> number of submissions: one for each job."""
    found: Counter[str] = Counter()
    for run in logs:
        found.update(re.findall(r"submitted with SLURM jobid \d+ \(log: \S*?/slurm-logs/(\S+)/\d+\.log", run.text))
    return found


def test_battered(prepared: Project, undisturbed: Project, cluster: Cluster) -> None:
    """Preemption, node death, scancel, the time limit, a slurmd and the controller away, in one run; equal in the end."""
    run = Run(prepared)
    run.training(*EXPERTS)
    where = {
        comment.removeprefix("rule_train_expert_wildcards_"): (i, n) for i, n, comment in jobs("%i %N %k", "RUNNING")
    }
    on = {node: [e for e in EXPERTS if where[e][1] == node] for node in ("g1", "g2")}
    assert len(on["g1"]) == len(on["g2"]) == 2, where

    # The time limit: a training that hangs (it is held, and stays so).
    hanging, cancelled = on["g1"]
    subprocess.run(["scontrol", "update", f"jobid={where[hanging][0]}", "timelimit=1"], check=True)
    # scancel by hand.
    subprocess.run(["scancel", where[cancelled][0]], check=True)
    # A node dies with all that runs on it, and comes back.
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
    # The controller is away for half a minute.
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
        assert "going on from" in (prepared.folder / f"results/faults/logs/train_expert/{expert}.log").read_text()
    same_results(prepared, undisturbed)
    assert prepared.planned(*COMMAND) == Counter()
    assert not [row for row in rows if row[0] == "leaderboard"]  # tiny steps are no Slurm jobs
    assert len([row for row in rows if row[0] == "merge" and row[3] == "COMPLETED"]) == 2
    tables = prepared.folder / "results/faults/report/tables"
    assert "\nmerge,2,0," in (tables / "cluster.csv").read_text()
    assert "\nmerge,2," in (tables / "time.csv").read_text()


def test_from_nothing(cluster: Cluster, undisturbed: Project, tmp_path: Path) -> None:
    """Reviews, a base and a baseline made on the cluster have the same bytes as on this machine alone."""
    project = on_the_test_site(tmp_path / "project")
    targets = ["results/faults/models/base-sentiment", "results/faults/predictions/tfidf.parquet"]
    project.snakemake(*targets, *COMMAND)
    made = [f for f in (project.folder / "results/faults").rglob("*") if f.suffix in (".parquet", ".safetensors")]
    assert len(made) == 8
    for file in made:
        assert file.read_bytes() == (undisturbed.folder / file.relative_to(project.folder)).read_bytes(), file


def test_preempted(prepared: Project, undisturbed: Project) -> None:
    """A job of higher priority takes the node: trainings are requeued, go on from their checkpoints, end the same."""
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
        assert "going on from" in (prepared.folder / f"results/faults/logs/train_expert/{expert}.log").read_text()
    same_results(prepared, undisturbed, EXPERTS)
    # A prediction, requeued while it is at work: it starts again, and says the same.
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
    """With MLLM_ORPHANS=cancel the earlier run's jobs are cancelled first; what changed meanwhile is not taken over."""
    first = Run(prepared, *TRAINED)
    first.training("shard-0")
    first.process.kill()
    first.process.wait()
    old = [i for i, _ in jobs("%i %k", "RUNNING", "PENDING")]
    assert old
    second = Run(prepared, *TRAINED, MLLM_ORPHANS="cancel")
    second.says(lambda: "still in the queue: cancelled" in second.text)
    assert not {i for i, _ in jobs("%i %k", "RUNNING", "PENDING")} & set(old)
    second.training("shard-0")
    second.process.kill()
    second.process.wait()
    # Another learning rate: these trainings are not what is wanted any more.
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
    """SIGINT cancels the jobs, SIGTERM waits for them; the same command goes on either way. A second run is refused."""
    first = Run(prepared, *TRAINED)
    first.training("shard-0")
    first.process.send_signal(signal.SIGINT)
    first.process.wait(timeout=60)
    wait_for(lambda: not jobs("%i %k", "RUNNING", "PENDING", "COMPLETING"), "an empty queue", 60)
    second = Run(prepared, *TRAINED)
    second.training(*FEW)
    ids = [job_of(e) for e in FEW]
    assert all(ids)
    # Somebody else in the same folder is refused, told whose run is at work, and disturbs nothing.
    refused = Run(prepared, *TRAINED).end(ok=False, seconds=60)
    assert f"(process {second.process.pid} on " in refused and "is at work in this folder" in refused
    assert "is at work in this folder" in refused
    second.process.send_signal(signal.SIGTERM)
    second.go_on()
    second.process.wait(timeout=200)
    assert not set(ids) & {i for i, _ in jobs("%i %k", "CANCELLED")}
    third = Run(prepared, *TRAINED)
    third.end()
    assert not [k for k in submissions(third) if "train_expert" in k]
    same_results(prepared, undisturbed, FEW)


def test_memory(prepared: Project, undisturbed: Project) -> None:
    """A job over its memory is killed, said so, and gets twice as much."""
    with (prepared.folder / "profiles/slurm/config.yaml").open("a") as file:
        file.write('set-resources:\n  predict: {mem_mb: "120 if attempt == 1 else 4000"}\n')
    text = Run(prepared, "results/faults/predictions/base-sentiment.parquet").end()
    assert "predict base-sentiment ran out of memory (120 MB asked)" in text
    path = "results/faults/predictions/base-sentiment.parquet"
    assert (prepared.folder / path).read_bytes() == (undisturbed.folder / path).read_bytes()


def test_full_disk(prepared: Project, undisturbed: Project) -> None:
    """A full disk fails jobs in words; with room again the same command ends the same."""
    predictions = prepared.folder / "results/faults/predictions"
    predictions.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4k", "none", predictions], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk here: {mounted.stderr.strip()}")
    target = "results/faults/predictions/base-sentiment.parquet"
    (predictions / ".keep").touch()  # an empty folder would be removed
    try:
        text = Run(prepared, target, "--retries", "0").end(ok=False)
        assert "the disk is full" in text
        assert not (prepared.folder / target).exists()
        subprocess.run(["mount", "-o", "remount,size=100m", predictions], check=True)
        Run(prepared, target).end()
        assert (prepared.folder / target).read_bytes() == (undisturbed.folder / target).read_bytes()
    finally:
        subprocess.run(["umount", predictions], check=False)


def test_preflight(prepared: Project) -> None:
    """Partitions and GPU types that do not exist are named before anything is submitted, all at once."""
    prepared.edit("profiles/slurm/config.yaml", "slurm_partition: low", "slurm_partition: lo")
    prepared.edit("profiles/slurm/config.yaml", "h100:80@gpu", "h900:80@gpu titan:12@gpu")
    refused = Run(prepared, "--slurm-array-jobs", "all")
    text = refused.end(ok=False, seconds=60)
    assert "slurm-array-jobs: found 'all', expected nothing" in text
    assert not submissions(refused)
    assert "partition 'lo' does not exist; this cluster has gpu, gpu_pre, high, low" in text
    assert "no GPU of type 'h900' in gpu; there: a100, h100" in text
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
    """What a failing script said is at hand, with its exit status, node and log; other jobs are not held up."""
    model = prepared.folder / "results/faults/models/base-sentiment/config.json"
    facts = json.loads(model.read_text())
    facts["id2label"] = dict(zip(facts["id2label"], reversed(facts["id2label"].values()), strict=True))
    model.write_text(json.dumps(facts))
    text = Run(prepared, "results/faults/predictions/base-sentiment.parquet", "--retries", "0").end(ok=False)
    assert re.search(r"predict base-sentiment failed \(exit status 1\) on g\d: Slurm job \d+\.", text)
    assert "the end of results/faults/logs/predict/base-sentiment.log" in text


def test_no_job_is_lost_silently(prepared: Project) -> None:
    """What fails around a submission is the job's error, in one message; bookkeeping that fails costs a line."""
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
    assert "what it used could not be written down" in text
    assert (prepared.folder / target).exists()


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
    """Four merges whose weights nobody keeps, and their predictions, in one allocation; no torch, so that it is quick."""

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
        """Two points are done, the third's prediction is at work."""
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
        for name in ("requeued", "cancelled", "node"):  # the third merge is made again: its weights went with the node
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
    assert "7 of the group's 8 jobs finished and are kept" in faults["failing"].text
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
    assert "predict 1 ran out of memory (200 MB asked)" in faults["memory"].text
