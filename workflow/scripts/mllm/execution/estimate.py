"""What planned jobs will take: their time by earlier runs' benchmarks, else what is reserved for them; GPU-hours; disk."""

import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mllm.core.wording import in_time

SAMPLE = 20  # benchmarks of a rule that are read, the latest first


@dataclass
class Estimate:
    """Planned jobs, and what is known of their times.

    ``seconds`` has a mean time per rule; ``reserved`` the seconds that jobs of other rules may take at most.
    """

    jobs: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)
    reserved: float = 0.0
    gpu_seconds: float = 0.0
    disk_mb: int = 0
    begin: float = field(default_factory=time.monotonic)
    worked: float = 0.0
    ended: set[int] = field(default_factory=set)

    def __str__(self) -> str:
        known = {rule: count for rule, count in self.jobs.items() if rule in self.seconds}
        parts = [f"{sum(self.jobs.values())} jobs"]
        if known:
            total = sum(self.seconds[rule] * count for rule, count in known.items())
            parts.append(f"{sum(known.values())} of them about {in_time(total)} by earlier runs, one after another")
        if self.reserved:
            parts.append(
                f"{sum((self.jobs - Counter(known)).values())} that never ran here at most {in_time(self.reserved)}"
            )
        if self.gpu_seconds:
            parts.append(f"{self.gpu_seconds / 3600:.1f} GPU-hours at most")
        return "Estimate: " + "; ".join([*parts, f"disk about {self.disk_mb:,} MB"])

    def left(self, rule: str, job: int, seconds: float) -> float:
        """Seconds to the end, after a job ended: work that is left, at the speed so far; 0 while nothing can be said."""
        if job not in self.ended:
            self.ended.add(job)
            self.worked += seconds
            self.jobs[rule] -= 1
            self.seconds.setdefault(rule, seconds)
        usual = sum(self.seconds.values()) / len(self.seconds)
        remaining = sum(self.seconds.get(rule, usual) * count for rule, count in self.jobs.items())
        at_once = self.worked / max(time.monotonic() - self.begin, 1e-6)
        return remaining / max(at_once, 1.0) if len(self.ended) > 2 else 0.0


def plan(dag: Any, benchmarks: Path, disk_mb: int) -> Estimate:
    """Read off the planned jobs and earlier runs' benchmarks what the run takes."""
    planned = [job for job in dag.needrun_jobs(exclude_finished=False) if not job.is_norun]  # a dry run finishes them
    estimate = Estimate(Counter(job.name for job in planned), disk_mb=disk_mb)
    estimate.seconds = usual_seconds(benchmarks, set(estimate.jobs))
    for job in planned:
        at_most = 60 * int(job.resources.get("runtime") or 0)
        if job.name not in estimate.seconds:
            estimate.reserved += at_most
        gpus = job.resources.get("gpu") or 0
        estimate.gpu_seconds += gpus * estimate.seconds.get(job.name, at_most)
    return estimate


def usual_seconds(benchmarks: Path, rules: set[str]) -> dict[str, float]:
    """Rule -> mean seconds of its latest jobs, of those rules that have benchmark files."""
    found: dict[str, list[float]] = defaultdict(list)
    for rule in rules:
        files = [benchmarks / f"{rule}.tsv", *(benchmarks / rule).rglob("*.tsv")]
        there = sorted((f for f in files if f.exists()), key=lambda f: f.stat().st_mtime)
        for file in there[-SAMPLE:]:
            lines = file.read_text(encoding="utf-8").splitlines()
            if len(lines) > 1:
                found[rule].append(float(lines[1].split("\t")[0]))
    return {rule: sum(times) / len(times) for rule, times in found.items()}
