"""Estimate what planned jobs take: time by earlier runs' benchmarks, else by their sizes; GPU-hours; disk."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mllm.core.counting import counted
from mllm.core.wording import in_time

SAMPLE = 20  # benchmarks of a rule that are read, the latest first


@dataclass
class Estimate:
    """Planned jobs and their times.

    ``seconds`` has a mean time per rule. ``guessed`` has the rules whose jobs never ran here: their times follow from
    their sizes. ``core_seconds`` and ``gpu_seconds`` are the total work. ``cores`` and ``gpus`` are this machine's, 0
    where jobs are submitted.
    """

    jobs: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)
    guessed: set[str] = field(default_factory=set)
    core_seconds: float = 0.0
    cores: int = 0
    gpus: int = 0
    gpu_seconds: float = 0.0
    disk_mb: int = 0
    begin: float = field(default_factory=time.monotonic)
    worked: float = 0.0
    ended: set[int] = field(default_factory=set)

    def __str__(self) -> str:
        count, unknown = self.jobs.total(), sum(self.jobs[rule] for rule in self.guessed)
        by = {0: "by earlier runs", count: "by sizes: no such job ran here yet"}
        source = by.get(unknown, f"{counted(count - unknown, 'job')} by earlier runs, {unknown} by sizes")
        where = f"on {counted(self.cores, 'core')}" + (f" and {counted(self.gpus, 'GPU')}" if self.gpus else "")
        where = where if self.cores else "of work, one job after another"
        wall = max(self.core_seconds / max(self.cores, 1), self.gpu_seconds / max(self.gpus, 1))
        parts = [counted(count, "job")]
        if count:
            parts.append(f"about {in_time(wall)} {where} ({source})")
        if self.gpu_seconds:
            parts.append(f"about {self.gpu_seconds / 3600:.1f} GPU-hours")
        return "Estimate: " + "; ".join([*parts, f"disk about {self.disk_mb:,} MB"])

    def left(self, rule: str, job: int, seconds: float) -> float:
        """Return the seconds to the end, after a job ended: the work left at the speed so far; 0 while unknown."""
        if job not in self.ended:
            self.ended.add(job)
            self.worked += seconds
            self.jobs[rule] -= 1
            if rule in self.guessed:
                self.guessed.remove(rule)
                self.seconds[rule] = seconds
            self.seconds.setdefault(rule, seconds)
        usual = sum(self.seconds.values()) / len(self.seconds)
        remaining = sum(self.seconds.get(rule, usual) * count for rule, count in self.jobs.items())
        at_once = self.worked / max(time.monotonic() - self.begin, 1e-6)
        return remaining / max(at_once, 1.0) if len(self.ended) > 2 else 0.0


def plan(dag: Any, benchmarks: Path, disk_mb: int, cores: int, gpus: int, expected: Callable[[Any], float]) -> Estimate:
    """Estimate a run from its planned jobs and earlier runs' benchmarks.

    Args:
        dag: Snakemake's graph of jobs.
        benchmarks: folder with a file per job that ran.
        disk_mb: disk space that the experiment needs.
        cores: of this machine; 0 where jobs are submitted.
        gpus: of this machine; 0 where jobs are submitted.
        expected: returns the seconds of a job by its sizes.
    """
    planned = [job for job in dag.needrun_jobs(exclude_finished=False) if not job.is_norun]  # a dry run finishes them
    estimate = Estimate(Counter(job.name for job in planned), cores=cores, gpus=gpus, disk_mb=disk_mb)
    measured = usual_seconds(benchmarks, set(estimate.jobs))
    estimate.guessed = set(estimate.jobs) - set(measured)
    taken: dict[str, list[float]] = defaultdict(list)
    for job in planned:
        seconds = measured[job.name] if job.name in measured else expected(job)
        taken[job.name].append(seconds)
        estimate.gpu_seconds += (job.resources.get("gpu") or 0) * seconds
        estimate.core_seconds += seconds * (min(job.threads, cores) if cores else 1)
    estimate.seconds = {rule: sum(times) / len(times) for rule, times in taken.items()}
    return estimate


def usual_seconds(benchmarks: Path, rules: set[str]) -> dict[str, float]:
    """Return the mean seconds of each rule's latest jobs, for rules that have benchmark files."""
    found: dict[str, list[float]] = defaultdict(list)
    for rule in rules:
        files = [benchmarks / f"{rule}.tsv", *(benchmarks / rule).rglob("*.tsv")]
        there = sorted((f for f in files if f.exists()), key=lambda f: f.stat().st_mtime)
        for file in there[-SAMPLE:]:
            lines = file.read_text(encoding="utf-8").splitlines()
            if len(lines) > 1:
                found[rule].append(float(lines[1].split("\t")[0]))
    return {rule: sum(times) / len(times) for rule, times in found.items()}
