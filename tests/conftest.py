"""What tests share: the project in a folder of its own, real Snakemake, the demonstration run once."""

import atexit
import functools
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from filelock import FileLock

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "workflow/scripts"
REAL = ROOT.parent / "shared/data"

# pytest's own process must not reach the network either.
os.environ.update(
    HF_HUB_OFFLINE="1", OMP_WAIT_POLICY="passive", MLLM_ALLOW_CPU="1"
)  # the tests' Slurm has GPUs in name only


def pytest_configure(config: pytest.Config) -> None:
    """Hide the GPU from all tests but those marked ``gpu``, which run alone: ``pytest -m gpu``."""
    if config.getoption("markexpr") != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no GPU here")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no worker has one of them alone at the end; Slurm's tests last as long as all others."""
    order = {name: i for i, name in enumerate(LONGEST)}
    for item in items:
        if WHOLE_RUNS & set(getattr(item, "fixturenames", ())) or item.path.name in LONG_FILES:
            item.add_marker("long")
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


LONGEST = (
    "test_slurm.py", "test_workflow.py", "test_models.py", "test_real_rows.py", "test_docs.py", "test_other_families.py",
    "test_scorers.py", "test_edits.py", "test_tables.py", "test_merging.py", "test_scoring.py", "test_calibration.py",
    "test_extending.py", "test_inference.py", "test_write_report.py", "test_families.py", "test_import_predictions.py",
    "test_interrupts.py", "test_mix_experts.py", "test_merge.py", "test_killed.py", "test_local_limits.py",
)  # fmt: skip
"""Files of half a minute and more, the longest first (`make test` shows the slowest tests)."""
WHOLE_RUNS = {"demo", "project", "finished", "changed", "cluster", "real_rows"}
"""Fixtures of tests that run Snakemake or need a finished run: `make test-fast` leaves them out."""
LONG_FILES = {"test_slurm.py", "test_killed.py", "test_warm.py", "test_families.py", "test_moe.py"}


class Project:
    """A copy of the project in which Snakemake can run without disturbing anything."""

    def __init__(self, folder: Path):
        self.folder = folder

    def snakemake(self, *arguments: str, ok: bool = True) -> str:
        """Run Snakemake; returns what it printed, with the logs' order kept."""
        done = subprocess.run(
            [sys.executable, "-m", "snakemake", *arguments],
            cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert (done.returncode == 0) == ok, done.stdout[-8000:]
        return done.stdout

    def planned(self, *arguments: str) -> Counter[str]:
        """Rule -> number of jobs that a dry run announces; the target `all` aside."""
        out = self.snakemake("-n", *arguments)
        if "Nothing to be done" in out:
            return Counter()
        lines = out[out.index("Job stats:") :].splitlines()[3:]
        jobs: Counter[str] = Counter()
        for line in lines:
            if not line.split() or line.startswith("total"):
                break
            rule, count = line.split()
            jobs[rule] = int(count)
        jobs.pop("all", None)
        return jobs

    def edit(self, path: str, old: str, new: str) -> None:
        file = self.folder / path
        text = file.read_text()
        assert old in text, f"{old!r} not in {path}"
        file.write_text(text.replace(old, new, 1))

    def copy(self, target: Path) -> "Project":
        shutil.copytree(self.folder, target, symlinks=True)
        return Project(target)


def fresh(target: Path) -> Project:
    """The files that git knows or would add, and nothing else."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        source = ROOT / name
        if source.exists() or source.is_symlink():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name, follow_symlinks=False)
    return Project(target)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return fresh(tmp_path / "project")


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The demonstration, run whole, once for all workers.

    Do not write to it: take demo.copy(tmp_path / "x").
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    output = shared / "demo.txt"
    with FileLock(shared / "demo.lock"):
        made = Project(shared / "demo") if output.exists() else fresh(shared / "demo")
        if not output.exists():
            output.write_text(made.snakemake("--profile", "profiles/local", "--configfile", "config/demo.yaml"))
    made.output = output.read_text()  # type: ignore[attr-defined]
    return made


@pytest.fixture(scope="session")
def three_tasks(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An experiment with merges over three tasks, from made-up predictions to the verdict: its folder, its grid, its labels."""
    import three_tasks as experiment

    return experiment.make(tmp_path_factory.mktemp("three"))


@pytest.fixture(scope="session")
def real_rows() -> Path:
    """Real rows of the Drugs.com reviews, which are not part of the project."""
    folder = REAL / "drugscom"
    if not folder.exists():
        pytest.skip(f"no real reviews at {folder}")
    return folder


def write_split(folder: Path, names: list[str], **parts: pl.DataFrame) -> None:
    """Write tables as split_reviews does, and the labels of their column ``label_t`` as label_reviews does for task t."""
    from mllm.data import labelled

    for split, part in parts.items():
        part.drop("label_t").write_parquet(folder / f"{split}.parquet")
    labels = pl.concat(part.select("review_id", label="label_t") for part in parts.values()).drop_nulls()
    labelled.write_task(folder, "t", {"names": names, "label": "sentiment"}, labels)


@functools.cache
def warm_path() -> str:
    """PATH in which `python script.py` is forked from one process that has the libraries: what jobs of a run do."""
    from mllm.execution import warm

    environment = warm.offer()
    atexit.register(warm.withdraw, environment)
    return environment["PATH"]


def run_script(name: str, *arguments: object, ok: bool = True) -> str:
    """Run a script of the workflow by hand; returns what it printed."""
    done = subprocess.run(
        ["python", str(SCRIPTS / f"{name}.py"), *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "PATH": warm_path()},
    )  # fmt: skip
    assert (done.returncode == 0) == ok, done.stdout
    return done.stdout
