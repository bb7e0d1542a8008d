"""Decide for the Slurm executor, without Slurm or Snakemake, what to submit and what a look at the queue means.

A task is one job of Snakemake or a group of them; its members are the jobs. An allocation is one Slurm job, which runs
members in turn. A task may have several allocations: its own, and an earlier run's that still run its members.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mllm.execution.jobstep import finished, usage_path
from mllm.execution.squeue import FAILED, alive, read, usage_files

POLL = (1.0, 15.0)  # seconds between two looks at the queue: after a change, and at most
VANISHED = 60.0  # seconds after which a job that Slurm no longer knows has failed
HELD = ("launch failed requeued held", "JobHoldMaxRequeue", "job requeued in held state")


@dataclass(frozen=True)
class Member:
    """A job as its record describes it to the compute node; ``place`` is its files' path below the records' folder."""

    place: str
    rule: str
    job: str  # its wildcards as one text
    key: str  # digest of what it does
    command: str
    inputs: list[str]  # made by no member of its task
    outputs: list[str]
    local: list[str] = field(default_factory=list)  # outputs that no job outside the task reads: they stay on the node
    needs: list[int] = field(default_factory=list)  # positions of the members whose outputs it reads
    logs: list[str] = field(default_factory=list)
    benchmark: str | None = None
    requested: dict[str, Any] = field(default_factory=dict)

    def usages(self, folder: Path) -> list[tuple[str, dict[str, Any]]]:
        """Return the usages that its allocations left, the newest first: (Slurm job, usage)."""
        found = [(i, read(path)) for i, path in usage_files(folder / f"{self.place}.json")]
        return [(i, u) for i, u in found if u and u.get("key") == self.key]

    def usage(self, folder: Path, ids: list[str]) -> dict[str, Any] | None:
        """Return its usage in one of these allocations; prefer a successful one."""
        known = [{**u, "slurm_id": i} for i, u in self.usages(folder) if i in ids or u["status"] == 0]
        return min(known, key=lambda u: bool(u["status"]), default=None)

    def older(self, than: float) -> bool:
        """Tell whether all inputs are older than a submission."""
        return not any(Path(f).stat().st_mtime > than for f in self.inputs if Path(f).exists())


@dataclass(frozen=True)
class Plan:
    """What to do with a task's members."""

    todo: list[int]  # positions of members to submit
    live: list[str]  # allocations of an earlier run that run members of it
    done: list[str]  # allocations that finished members of it
    cancel: list[str]  # allocations of an earlier run that write other results to the same places


def plan(members: list[Member], folder: Path, orphans: list[dict[str, Any]]) -> Plan:
    """Decide which members to submit: no finished or running member again, every changed one.

    Args:
        members: ordered so that each follows the members that it needs.
        folder: the records' folder.
        orphans: earlier allocations, each with slurm_id, state, submitted and its record's members.
    """
    places = {o["slurm_id"]: {m["place"]: m["key"] for m in o["members"]} for o in orphans}
    living = {o["slurm_id"]: o for o in orphans if alive(o["state"])}
    done: dict[int, str] = {}
    for i, member in enumerate(members):
        if all(j in done for j in member.needs) and (by := finished_by(member, folder, orphans)):
            done[i] = by
    cancel: set[str] = set()
    while True:
        live = {}
        for i, member in enumerate(members):
            for slurm_id in living if i not in done else ():
                same = places[slurm_id].get(member.place) == member.key and slurm_id not in cancel
                if same and member.older(living[slurm_id]["submitted"]):
                    live[i] = slurm_id
        todo = {i for i in range(len(members)) if i not in done and i not in live}
        for i in reversed(range(len(members))):
            if i in todo:
                todo |= {j for j in members[i].needs if j not in done or members[j].local}
        wanted = {members[i].place for i in todo}
        clash = {i for i in living if i not in cancel and wanted & set(places[i])}
        if not clash:
            kept = dict.fromkeys(done[i] for i in sorted(done) if i not in todo)
            return Plan(sorted(todo), list(dict.fromkeys(live.values())), list(kept), sorted(cancel))
        cancel |= clash


def finished_by(member: Member, folder: Path, orphans: list[dict[str, Any]]) -> str:
    """Return the allocation that finished a member; empty if there is none, or an input is newer."""
    if finished(asdict(member), folder):
        for slurm_id, usage in member.usages(folder):
            if usage["status"] == 0 and member.older(usage.get("submitted", 0)):
                return slurm_id
    for orphan in orphans:
        same = any(m["place"] == member.place and m["key"] == member.key for m in orphan["members"])
        made = all(Path(f).exists() for f in member.outputs)
        if same and orphan["state"] == "COMPLETED" and made and member.older(orphan["submitted"]):
            return str(orphan["slurm_id"])
    return ""


def record_of(members: list[Member], todo: list[int], run: str, comment: str) -> dict[str, Any]:
    """Return the record of an allocation, written before the submission: enough to run it, and to take it over later."""
    position = {i: n for n, i in enumerate(todo)}
    chosen = [{**asdict(members[i]), "needs": [position[j] for j in members[i].needs if j in position]} for i in todo]
    return {
        "key": key_of_group([members[i] for i in todo]),
        "run": run,
        "comment": comment,
        "submitted": time.time(),
        "members": chosen,
    }


def key_of_group(members: list[Member]) -> str:
    """Return an allocation's digest: its only member's, or one over all members."""
    if len(members) == 1:
        return members[0].key
    return hashlib.sha256(json.dumps([[m.place, m.key] for m in members]).encode()).hexdigest()[:16]


@dataclass
class Task:
    """A running job or group of Snakemake, and its allocations."""

    jobs: list[Any]  # Snakemake's
    members: list[Member]
    todo: list[int]
    record: Path
    ids: list[str]
    states: dict[str, str] = field(default_factory=dict)

    def outcome(self, folder: Path) -> str:
        """Return ``running``, ``done`` or ``failed``, by the states of its allocations and its members' usages."""
        ended_well = [bool((u := m.usage(folder, self.ids)) and u["status"] == 0) for m in self.members]
        adopted = len(self.ids) > 1 or not self.todo
        if adopted and all(ended_well):  # an earlier run's allocation may still run jobs that this task does not need
            return "done"
        if any(alive(state) for state in self.states.values()):
            return "running"
        if all(ended_well) or all(state == "COMPLETED" for state in self.states.values()):
            return "done"
        return "failed"

    def worst(self) -> str:
        """Return the state that explains its failure best."""
        return next((s for s in self.states.values() if s in FAILED and s != "FAILED"), "FAILED")

    def failing(self, usages: list[dict[str, Any] | None]) -> list[int]:
        """Return the members that failed; if the allocation ended before, the first member that did not finish."""
        failed = [i for i, u in enumerate(usages) if u and u["status"]]
        return failed or [i for i, u in enumerate(usages) if u is None][:1]

    def used(self, usages: list[dict[str, Any] | None], good: list[bool], state: str) -> list[dict[str, Any]]:
        """Return rows of the efficiency table: the resources that each member requested and used.

        Args:
            usages: each member's usage; None where it left none.
            good: whether each member finished.
            state: the allocation's state, for members that did not finish.
        """
        rows = []
        for member, usage, well in zip(self.members, usages, good, strict=True):
            if usage or len(self.members) == 1:
                requested = {f"requested_{k}": v for k, v in member.requested.items()}
                name = {"rule": member.rule, "job": member.job, "slurm_id": self.ids[-1]}
                rows.append({**name, "state": "COMPLETED" if well else state, **requested, **(usage or {})})
        return rows

    def forget(self, folder: Path, good: list[bool]) -> None:
        """Delete the task's record and usage files; keep a failed group's finished members' for the next attempt."""
        self.record.unlink(missing_ok=True)
        for slurm_id in self.ids:
            usage_path(self.record, slurm_id).unlink(missing_ok=True)
        for member, well in zip(self.members, good, strict=True):
            if all(good) or not well:
                for slurm_id, _ in member.usages(folder):
                    usage_path(folder / f"{member.place}.json", slurm_id).unlink(missing_ok=True)


@dataclass
class Watch:
    """Follows each allocation through successive looks at the queue."""

    last_seen: dict[str, float] = field(default_factory=dict)
    releases: Counter[str] = field(default_factory=Counter)
    pause: float = POLL[0]

    def state(
        self, slurm_id: str, row: dict[str, str] | None, ended: Callable[[], dict[str, Any] | None], now: float
    ) -> tuple[str, str]:
        """Return an allocation's state, and what to do with it: release, cancel or nothing.

        Args:
            slurm_id: the allocation.
            row: its line in the queue; None if it is not listed yet, or no longer.
            ended: reads the usage that its job step left at the end.
            now: the present time in seconds.
        """
        if row is None:
            if usage := ended():
                return ("COMPLETED" if usage["status"] == 0 else "FAILED"), ""
            first = self.last_seen.setdefault(slurm_id, now)
            return ("VANISHED" if now - first > VANISHED else "PENDING"), ""
        self.last_seen[slurm_id] = now
        if row["state"] == "PENDING" and row["reason"] in HELD:
            # Slurm holds a job that a node could not start; it is released twice, after that it has failed.
            self.releases[slurm_id] += 1
            return ("PENDING", "release") if self.releases[slurm_id] <= 2 else ("BOOT_FAIL", "cancel")
        return row["state"], ""

    def next_look(self, happened: bool) -> float:
        """Return the seconds to the next look: few after a change, more and more without changes."""
        self.pause = POLL[0] if happened else min(self.pause * 1.5, POLL[1])
        return self.pause
