"""Provide a real Slurm of four nodes on this machine (tests/slurm), an experiment, Snakemake in the background."""

import contextlib
import ctypes
import fcntl
import functools
import os
import re
import shutil
import signal
import socket
import struct
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

from conftest import ROOT, Project, fresh, made_once
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
FEW = EXPERTS[:2]  # enough if the number does not matter
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
        """Send a signal to a daemon only."""
        file = self.folder / f"{daemon}.pid"
        pid = int(file.read_text())
        os.kill(pid, how)
        wait_for(lambda: born(pid) is None, f"the end of {daemon}", 60)
        file.unlink(missing_ok=True)

    def kill_node(self, node: str) -> None:
        """Kill all processes of a node at once: its daemon, its steps, their jobs."""
        there = [id_ for id_, where in jobs("%i %N", "RUNNING") if where == node]
        self.kill(f"slurmd.{node}")
        for id_ in there:  # the step's daemon before its job, so that no process reports the end
            subprocess.run(["pkill", "-KILL", *HERE, "-f", rf"slurmstepd: \[{id_}\."], check=False)
            for pid in processes(id_):
                os.kill(pid, signal.SIGKILL)


def jobs(form: str = "%i %k", *states: str) -> list[list[str]]:
    """Return the fields of jobs in one of the states; of all jobs if no state is named."""
    rows = [line.split("|") for line in squeue("%T|" + form.replace(" ", "|")).splitlines()]
    return [row[1:] for row in rows if not states or row[0] in states]


HERE = ("--ns", str(os.getpid()), "--nslist", "net")
"""Options of pkill: processes in this process's network alone."""


@functools.cache
def apart() -> bool:
    """Give this process a separate network and folder /etc/slurm; tell whether it has them.

    So pytest's workers can have clusters at the same time, all with the same ports.
    """
    new_mounts, new_network, private = 0x20000, 0x40000000, 1 << 18 | 1 << 14
    set_flags, set_address, up = 0x8914, 0x8916, 1
    libc = ctypes.CDLL(None)
    if libc.unshare(new_mounts | new_network):
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:  # a new network's loopback is down
        fcntl.ioctl(control, set_flags, struct.pack("16sh", b"lo", up))
        # Names are looked up only where there is an address beside 127.0.0.1.
        address = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton("127.0.0.2"))
        fcntl.ioctl(control, set_address, struct.pack("16s16s", b"lo:1", address))
    Path("/etc/slurm").mkdir(exist_ok=True)
    return not (libc.mount(b"none", b"/", None, private, None) or libc.mount(b"none", b"/etc/slurm", b"tmpfs", 0, None))


def job_of(expert: str, state: str = "RUNNING") -> str:
    """Return Slurm's number of an expert's training."""
    for id_, comment in jobs("%i %k", state):
        if comment == f"rule_train_expert_wildcards_{expert}":
            return id_
    return ""


def processes(id_: str) -> list[int]:
    """Return a Slurm job's processes below its step daemon, in this network: other clusters have jobs of that number."""
    found = []
    network = Path("/proc/thread-self/ns/net").readlink()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "ns/net").readlink() == network and f"SLURM_JOB_ID={id_}".encode() in (
                folder / "environ"
            ).read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def send(how: signal.Signals, id_: str) -> None:
    """Send a signal to all processes of a Slurm job."""
    for pid in processes(id_) if id_ else []:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, how)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Start a separate cluster for each test: it takes a second, and no test meets what another broke."""
    missing = [p for p in ("slurmctld", "slurmd", "munged", "sbatch") if not shutil.which(p)]
    if missing or os.geteuid() != 0:
        pytest.skip(
            f"no Slurm here: {', '.join(missing) or 'not root'} (apt install slurmctld slurmd slurm-client munge)"
        )
    made = Cluster(tmp_path / "slurm")
    # In one network, two clusters would want the same ports.
    lock = FileLock(Path(tempfile.gettempdir(), "mllm-test-slurm.lock"))
    with contextlib.nullcontext() if apart() else lock:
        made.start()
        yield made
        while Run.started:
            Run.started.pop().process.kill()
        made.stop()


def on_the_test_site(target: Path) -> Project:
    """Return the project with another site in the profile, and with the experiment of these tests."""
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
    """Run the experiment without the cluster, in a namespace without any network, once for all workers."""

    def make(project: Project) -> str:
        on_the_test_site(project.folder)
        alone = ["unshare", "--net"] if os.geteuid() == 0 else []
        done = subprocess.run(
            [*alone, sys.executable, "-m", "snakemake", "--profile", "profiles/local", "--configfile", "config/faults.yaml"],
            cwd=project.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-5000:]
        return done.stdout

    return made_once(tmp_path_factory, "undisturbed", make)


@pytest.fixture
def prepared(undisturbed: Project, cluster: Cluster, tmp_path: Path) -> Project:
    """Make data, base and baseline; leave experts, merges and later jobs to do."""
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
        """Wait for a text in its output."""
        wait_for(lambda: condition() or self.process.poll() is not None, "a message")
        assert condition(), self.text[-6000:]

    def training(self, *experts: str) -> None:
        """Wait until each of these trainings has a checkpoint to resume from, and pause it there (until `go_on`).

        So the test's next step finds all of them running, however fast the machine is.
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
        """Let paused trainings run, where they still exist."""
        for expert in self.held:
            send(signal.SIGCONT, job_of(expert))


def same_results(project: Project, reference: Project, only: Sequence[str] = ()) -> None:
    """Compare all weights, predictions and scores byte for byte; or only some models' weights."""

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
    """Return the number of submissions in each of Slurm's log folders, one folder per job."""
    found: Counter[str] = Counter()
    for run in logs:
        found.update(re.findall(r"submitted with SLURM jobid \d+ \(log: \S*?/slurm-logs/(\S+)/\d+\.log", run.text))
    return found
