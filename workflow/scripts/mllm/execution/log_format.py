"""What a run looks like: one readable line per job, the end of the log where one fails."""

import re
from pathlib import Path
from typing import Any

from mllm.experiment.grid import Grid

# What Snakemake says at every step, whatever happens.
NOISE = (
    "Would remove temporary output", "Select jobs to execute", "Execute ", "Removing temporary output",
    "No SLURM account given", "No account was given", "Unable to guess SLURM account", "Cleaning up SLURM log",
)  # fmt: skip
CLUSTER_HINT = "For further error details see the cluster/cloud log and the log files of the involved rule(s)."
TAIL = 20  # lines of a failing job's log


def install(workflow: Any, grid: Grid) -> None:
    """Let Snakemake's own handlers print with our formatter.

    Snakemake offers no lighter hook: a logger plugin would have to be a package of its own.
    """
    from snakemake.logging import DefaultFormatter, logger

    described: dict[int, str] = {}  # a failing job's message lacks its wildcards

    class Formatter(DefaultFormatter):
        """One line per job; the rest is Snakemake's."""

        def format_job_info(self, msg: dict[str, Any]) -> str:
            what = describe(grid, msg["rule_name"], msg["wildcards"])
            described[msg["jobid"]] = what
            return f"{msg['rule_name']:<16} {what}  ← {why(str(msg['reason']))}"

        def format_job_finished(self, msg: dict[str, Any]) -> str:
            return ""

        def _format_job_error(self, msg: dict[str, Any]) -> list[str]:
            lines = [f"FAILED: {msg['rule_name']} {described.get(msg['jobid'], '')}".rstrip()]
            if msg.get("rule_msg"):
                lines.append("  " + str(msg["rule_msg"]).removesuffix(CLUSTER_HINT))
            for path in msg["log"] or []:
                lines += [f"  the end of {path}:", *(f"    {line}" for line in tail(Path(path)))]
            return lines

    for handler in logger.handlers:
        handler.addFilter(lambda record: not str(record.msg).startswith(NOISE))
        if isinstance(handler.formatter, DefaultFormatter):
            old = handler.formatter
            handler.setFormatter(Formatter(old.quiet, old.show_failed_logs))


def describe(grid: Grid, rule: str, wildcards: Any) -> str:
    """A job in the words of the experiment."""
    values = dict(wildcards.items()) if hasattr(wildcards, "items") else {}
    name = values.get("merge") or values.get("candidate") or values.get("expert") or " ".join(map(str, values.values()))
    candidate = grid.candidates.get(name)
    if rule in ("merge", "blend") and candidate:
        return f"{name}: {candidate.describe()}"
    return name


def why(reason: str) -> str:
    """Snakemake's reason in a few words; what changed in the parameters is shown."""
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
