"""Format a run's messages: one readable line per job, the progress, and the end of a failing job's log."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mllm.core.counting import counted
from mllm.core.wording import in_time
from mllm.execution import interrupts, run_lock, snakemake_patches
from mllm.execution.estimate import Estimate
from mllm.execution.slurm_resources import in_turn, shown
from mllm.experiment.grid import Grid

# Messages that Snakemake prints at every step.
NOISE = (
    "Would remove temporary output", "Select jobs to execute", "Execute ", "Removing temporary output",
    "No SLURM account given", "No account was given", "Unable to guess SLURM account", "Cleaning up SLURM log",
    "Assuming unrestricted shared filesystem", "Using shell: ", "Provided resources: ", "Singularity containers: ", "Rules claiming more threads", "Building DAG of jobs",
    "Some jobs were triggered by provenance information", "Terminating processes on user request", "Reasons:\n",
)  # fmt: skip
CLUSTER_HINT = "For further error details see the cluster/cloud log and the log files of the involved rule(s)."
TAIL = 20  # lines of a failing job's log


def install(grid: Grid, estimate: Callable[[], Estimate], announcement: Callable[[], str], owners: Path) -> None:
    """Let Snakemake print with this project's formatter.

    Args:
        grid: the experiment's candidates, which jobs are named by.
        estimate: returns the estimate of the planned jobs; called once there is a plan.
        announcement: returns the text at the end of a dry run.
        owners: Snakemake's folder, with the notes of living runs.
    """

    def keep(record: Any) -> bool:
        text = str(record.msg)
        if "Directory cannot be locked" in text:
            record.msg = run_lock.who_works_here(owners)
        if re.search(r"died with <Signals\.SIG(INT|TERM)", text) and interrupts.about_to_stop():
            return False
        return not interrupts.stopped() and not text.startswith(NOISE)

    snakemake_patches.replace_formatter(lambda base: formatter(base, grid, estimate, announcement), keep)


def formatter(base: type, grid: Grid, estimate: Callable[[], Estimate], announcement: Callable[[], str]) -> type:
    """Make a subclass of Snakemake's formatter, which is passed as ``base``.

    The class is inside a function, and the function is long, because its base is known only when Snakemake runs.
    """
    described: dict[int, str] = {}  # messages about a job's end lack its wildcards
    begun: dict[int, float] = {}
    ended: list[int] = []
    said: list[str] = []  # the table of jobs, which a dry run prints twice

    class Formatter(base):
        """Prints one line per job; all other messages are Snakemake's."""

        def format(self, record: Any) -> str:
            if str(record.msg).startswith("This was a dry-run"):
                return f"{announcement()}\nThis was a dry run: nothing was done."
            return str(super().format(record))

        def format_run_info(self, msg: dict[str, Any]) -> str:
            before, said[:] = said[:], [str(msg["msg"])]
            return "" if before == said else said[0]

        def format_job_info(self, msg: dict[str, Any]) -> str:
            name, what = msg["rule_name"], describe(grid, msg["rule_name"], msg["wildcards"])
            described[msg["jobid"]] = f"{name} {what.partition(':')[0]}".rstrip()
            begun[msg["jobid"]] = time.monotonic()
            reason = why(str(msg["reason"]), known=any(Path(str(f)).exists() for f in msg["log"] or []))
            where = "" if msg.get("indent") else shown(msg["resources"])
            return f"{name:<16} {what}" + (f"  ← {reason}" if reason else "") + (f"  {where}" if where else "")

        def format_group_info(self, msg: dict[str, Any]) -> str:
            asked = in_turn([dict(job.resources.items()) for job in msg["jobs"]])
            return (
                f"{msg['group_id']:<16} {counted(len(msg['jobs']), 'job')} in one allocation  {shown(asked)}".rstrip()
            )

        def format_job_finished(self, msg: dict[str, Any]) -> str:
            ended.append(msg["job_id"])
            return ""

        def format_progress(self, msg: dict[str, Any]) -> str:
            if not ended:
                return ""
            job = ended[-1]
            seconds = time.monotonic() - begun.get(job, time.monotonic())
            left = estimate().left(described.get(job, "").partition(" ")[0], job, seconds)
            line = f"[{msg['done']}/{msg['total']}] {described.get(job, 'job')}, {in_time(seconds)}"
            return line + (f", about {in_time(left)} left" if left and msg["done"] < msg["total"] else "")

        def _format_job_error(self, msg: dict[str, Any]) -> list[str]:
            lines = [f"FAILED: {described.get(msg['jobid'], msg['rule_name'])}"]
            if msg.get("rule_msg"):
                lines.append("  " + str(msg["rule_msg"]).removesuffix(CLUSTER_HINT))
            for path in msg["log"] or []:
                lines += [f"  end of {path}:", *(f"    {line}" for line in tail(Path(path)))]
            return lines

    return Formatter


def describe(grid: Grid, rule: str, wildcards: Any) -> str:
    """Describe a job in terms of the experiment."""
    values = dict(wildcards.items()) if hasattr(wildcards, "items") else {}
    values |= {"whole": values["whole"] + values.pop("run", "")} if "whole" in values else {}
    name = values.get("merge") or values.get("candidate") or values.get("expert") or " ".join(map(str, values.values()))
    candidate = grid.candidates.get(name) or next(iter(grid.wholes.get(name, {}).values()), None)
    if rule in ("merge", "merge_tasks", "blend") and candidate:
        return f"{name}: {candidate.describe()}"
    return name


def why(reason: str, known: bool = True) -> str:
    """Shorten Snakemake's reason for a job; show which parameters changed.

    Args:
        reason: Snakemake's text.
        known: whether the job ran before. For a new job, missing output is no reason to print.
    """
    if not known and any(words in reason for words in ("Missing output files", "Input files updated by another job")):
        return ""
    words = {
        "Missing output files": "missing",
        "Updated input files": "input changed",
        "Input files updated by another job": "input will change",
        "Code has changed": "rule changed",
        "Set of input files has changed": "other inputs",
        "Software environment definition has changed": "environment changed",
        "Incomplete output files": "unfinished",
        "Forced execution": "forced",
        "Rules with": "always",
    }
    found = [short for long, short in words.items() if long in reason]
    if "Params have changed" in reason:
        values = re.findall(r"(?:before|now): (.*?)(?= now: | before: |; |$)", reason.replace("\n", " "))
        found.append("parameters changed" + (f": {' → '.join(v.strip() for v in values)}" if values else ""))
    return ", ".join(found or [reason])


def tail(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()[-TAIL:] or ["(empty)"]
    except FileNotFoundError:
        return ["(no log was written)"]
