"""Report the progress of a run on a cluster, and compare the resources that jobs used with their requests."""

import csv
import time
from collections import Counter
from pathlib import Path
from typing import Any

SAY = 30.0  # seconds between two lines about the progress


def count_jobs(dag: Any) -> Counter[str]:
    """Count the unfinished jobs of each rule, in the order of the experiment."""
    return Counter(j.name for j in dag.needrun_jobs() if not j.is_norun and not dag.finished(j))


class Progress:
    """A run's progress: its jobs by stage, and the resources that ended jobs used."""

    def __init__(self, dag: Any):
        self.dag, self.totals = dag, count_jobs(dag)
        self.failures: Counter[str] = Counter()  # rule -> failed attempts
        self.used: list[dict[str, Any]] = []
        self.said = (0.0, "")

    def add(self, used: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Record the resources that jobs used; return the records that are new."""
        told = {(u["rule"], u["job"], u["slurm_id"]) for u in self.used}
        new = [u for u in used if (u["rule"], u["job"], u["slurm_id"]) not in told]
        self.used += new
        return new

    def line(self, active: dict[Any, str]) -> str:
        """Return a new line about the progress every half minute; empty in between.

        Args:
            active: job -> RUNNING or PENDING.
        """
        when, before = self.said
        if time.time() - when <= SAY:
            return ""
        line = progress(self.totals, count_jobs(self.dag), active, self.failures, self.used)
        self.said = (time.time(), line)
        return line if line != before else ""


def progress(
    totals: Counter[str],
    remaining: Counter[str],
    active: dict[Any, str],
    failures: Counter[str],
    used: list[dict[str, Any]],
) -> str:
    """Return one line: each stage's jobs done, running, queued and failed, and the time left if it is known."""
    parts, left = [], 0.0
    for rule, count in totals.items():
        counts = Counter("running" if s == "RUNNING" else "queued" for j, s in active.items() if j.name == rule)
        words = [f"{n} {what}" for what, n in (*sorted(counts.items(), reverse=True), ("failed", failures[rule])) if n]
        if remaining[rule] or words:
            parts.append(f"{rule} {count - remaining[rule]}/{count}" + (f" ({', '.join(words)})" if words else ""))
        seconds = [u["seconds"] for u in used if u["rule"] == rule and "seconds" in u]
        if remaining[rule] and seconds:
            left += sum(seconds) / len(seconds) * remaining[rule] / max(1, counts["running"])
    return "progress: " + ", ".join(parts) + (f"; about {max(1, round(left / 60))} min left" if left else "")


def write_efficiency(path: Path, used: list[dict[str, Any]]) -> None:
    """Append one row per job that ended in this run: the resources that it requested and used."""
    columns = [
        "rule", "job", "slurm_id", "state", "node", "restarts", "seconds", "requested_minutes", "cpu_seconds",
        "requested_cpus", "peak_mb", "requested_mem_mb", "requested_gpu",
    ]  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        if new:
            writer.writeheader()
        writer.writerows(used)


def efficiency_text(used: list[dict[str, Any]]) -> str:
    """Return one line per rule: number of jobs, longest time and largest memory, each beside its request."""
    lines = [f"  {'rule':<16}{'jobs':>5}{'longest':>9}{'asked':>9}{'peak MB':>9}{'asked':>9}"]
    for rule in dict.fromkeys(u["rule"] for u in used):
        rows = [u for u in used if u["rule"] == rule and "seconds" in u]
        if rows:
            keys = ("seconds", "requested_minutes", "peak_mb", "requested_mem_mb")
            seconds, minutes, peak, memory = (max(r.get(key) or 0 for r in rows) for key in keys)
            lines.append(f"  {rule:<16}{len(rows):>5}{seconds:>8.0f}s{minutes:>8}m{peak:>9}{memory:>9}")
    return "\n".join(lines)
