"""Decisions of the Slurm executor, without Slurm and without Snakemake: what to submit, and what a look at the queue means.

A task is one job of Snakemake or a group of them; its members are the jobs. An allocation is one Slurm job, which runs
members in turn. A task may follow several allocations: those of an earlier run that still work for it, and its own.
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

POLL = (1.0, 15.0)  # seconds between two looks at the queue: after something happened, and at most
VANISHED = 60.0  # seconds after which a job that Slurm does not know any more has failed
HELD = ("launch failed requeued held", "JobHoldMaxRequeue", "job requeued in held state")


@dataclass(frozen=True)
class Member:
    """A job as its record tells it to the compute node; ``place`` is its files' place below the records' folder."""

    place: str
    rule: str
    job: str  # its wildcards, in a few words
    key: str  # digest of what it does
    command: str
    inputs: list[str]  # made by no member of its task
    outputs: list[str]
    local: list[str] = field(default_factory=list)  # outputs that no job outside of the task reads: stay on the node
    needs: list[int] = field(default_factory=list)  # positions of the members whose outputs it reads
    logs: list[str] = field(default_factory=list)
    benchmark: str | None = None
    requested: dict[str, Any] = field(default_factory=dict)

    def usages(self, folder: Path) -> list[tuple[str, dict[str, Any]]]:
        """What its allocations left of it, the newest first: (Slurm job, usage)."""
        found = [(i, read(path)) for i, path in usage_files(folder / f"{self.place}.json")]
        return [(i, u) for i, u in found if u and u.get("key") == self.key]

    def usage(self, folder: Path, ids: list[str]) -> dict[str, Any] | None:
        """What it used in one of some allocations; a good end goes before a bad one."""
        known = [{**u, "slurm_id": i} for i, u in self.usages(folder) if i in ids or u["status"] == 0]
        return min(known, key=lambda u: bool(u["status"]), default=None)

    def older(self, than: float) -> bool:
        """Whether no input is newer than a submission."""
        return not any(Path(f).stat().st_mtime > than for f in self.inputs if Path(f).exists())


@dataclass(frozen=True)
class Plan:
    """What becomes of a task's members."""

    todo: list[int]  # to submit
    live: list[str]  # allocations of an earlier run that work for it
    done: list[str]  # allocations that finished some of it
    cancel: list[str]  # allocations of an earlier run that do something else in the same places


def plan(members: list[Member], folder: Path, orphans: list[dict[str, Any]]) -> Plan:
    """Decide what to submit of a task: nothing finished or at work is done again, nothing changed is kept.

    Args:
        members: in an order in which each follows what it needs.
        folder: of the records.
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
    """The allocation that finished a member for good; empty where there is none, or an input is newer."""
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
    """What is written down of an allocation before it is submitted: enough to run it, and to take it over later."""
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
    """Digest of an allocation: its only member's, or one over all."""
    if len(members) == 1:
        return members[0].key
    return hashlib.sha256(json.dumps([[m.place, m.key] for m in members]).encode()).hexdigest()[:16]


@dataclass
class Task:
    """A job or group of Snakemake that is at work, and the allocations that work for it."""

    jobs: list[Any]  # Snakemake's
    members: list[Member]
    todo: list[int]
    record: Path
    ids: list[str]
    states: dict[str, str] = field(default_factory=dict)

    def outcome(self, folder: Path) -> str:
        """``running``, ``done`` or ``failed``, from the states of its allocations and what its members left."""
        ended_well = [bool((u := m.usage(folder, self.ids)) and u["status"] == 0) for m in self.members]
        adopted = len(self.ids) > 1 or not self.todo
        if adopted and all(ended_well):  # an earlier run's allocation may go on with what this one does not want
            return "done"
        if any(alive(state) for state in self.states.values()):
            return "running"
        if all(ended_well) or all(state == "COMPLETED" for state in self.states.values()):
            return "done"
        return "failed"

    def worst(self) -> str:
        """State that its failure is told by."""
        return next((s for s in self.states.values() if s in FAILED and s != "FAILED"), "FAILED")

    def failing(self, usages: list[dict[str, Any] | None]) -> list[int]:
        """Members that failed; where the allocation ended under them, the first that did not finish."""
        failed = [i for i, u in enumerate(usages) if u and u["status"]]
        return failed or [i for i, u in enumerate(usages) if u is None][:1]

    def used(self, usages: list[dict[str, Any] | None], good: list[bool], state: str) -> list[dict[str, Any]]:
        """Rows of the efficiency table: what each member asked for and used.

        Args:
            usages: of each member; None where it left none.
            good: whether each finished.
            state: of the allocation, for those that did not.
        """
        rows = []
        for member, usage, well in zip(self.members, usages, good, strict=True):
            if usage or len(self.members) == 1:
                requested = {f"requested_{k}": v for k, v in member.requested.items()}
                name = {"rule": member.rule, "job": member.job, "slurm_id": self.ids[-1]}
                rows.append({**name, "state": "COMPLETED" if well else state, **requested, **(usage or {})})
        return rows

    def forget(self, folder: Path, good: list[bool]) -> None:
        """Remove the task's record and usage files; those of a failed group's finished members stay: they tell the next attempt."""
        self.record.unlink(missing_ok=True)
        for slurm_id in self.ids:
            usage_path(self.record, slurm_id).unlink(missing_ok=True)
        for member, well in zip(self.members, good, strict=True):
            if all(good) or not well:
                for slurm_id, _ in member.usages(folder):
                    usage_path(folder / f"{member.place}.json", slurm_id).unlink(missing_ok=True)


@dataclass
class Watch:
    """What one look at the queue after the other means for each allocation."""

    last_seen: dict[str, float] = field(default_factory=dict)
    releases: Counter[str] = field(default_factory=Counter)
    pause: float = POLL[0]

    def state(
        self, slurm_id: str, row: dict[str, str] | None, ended: Callable[[], dict[str, Any] | None], now: float
    ) -> tuple[str, str]:
        """An allocation's state, and what is to be done with it: release, cancel or nothing.

        Args:
            row: the queue's line about it; None where it lists it not yet, or no more.
            ended: reads what its job step left at the end.
        """
        if row is None:
            if usage := ended():
                return ("COMPLETED" if usage["status"] == 0 else "FAILED"), ""
            first = self.last_seen.setdefault(slurm_id, now)
            return ("VANISHED" if now - first > VANISHED else "PENDING"), ""
        self.last_seen[slurm_id] = now
        if row["state"] == "PENDING" and row["reason"] in HELD:
            # Slurm holds a job that a node could not start; it is let go twice, after that it has failed.
            self.releases[slurm_id] += 1
            return ("PENDING", "release") if self.releases[slurm_id] <= 2 else ("BOOT_FAIL", "cancel")
        return row["state"], ""

    def next_look(self, happened: bool) -> float:
        """Seconds to the next look: soon after something happened, ever later where nothing does."""
        self.pause = POLL[0] if happened else min(self.pause * 1.5, POLL[1])
        return self.pause
