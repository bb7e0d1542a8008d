"""Describe Snakemake's jobs for the Slurm executor's records, and explain their failures."""

import hashlib
import json
from pathlib import Path
from typing import Any

from mllm.execution.log_format import tail
from mllm.execution.slurm_tasks import Member, key_of_group
from mllm.execution.squeue import FAILED


def in_order(job: Any) -> list[Any]:
    """Order a task's jobs, each right after the jobs that only it needs: a merge, its prediction, the next merge, ….

    So few merges' weights exist at once.
    """
    jobs = sorted(job, key=lambda j: sorted(map(str, j.output))) if job.is_group() else [job]
    makers = {str(f): j for j in jobs for f in j.output}
    found: dict[Any, None] = {}

    def add(one: Any) -> None:
        for maker in dict.fromkeys(makers[str(f)] for f in one.input if str(f) in makers):
            if maker not in found:
                add(maker)
        found[one] = None

    read = {str(f) for j in jobs for f in j.input}
    for last in [j for j in jobs if not any(str(f) in read for f in j.output)]:
        add(last)
    return list(found)


def members_of(dag: Any, jobs: list[Any], group: Any) -> list[Member]:
    """Return what the compute node and a later run need to know about a task's jobs."""
    makers = {str(f): i for i, job in enumerate(jobs) for f in job.output}
    members = []
    for job in jobs:
        resources = job.resources
        members.append(Member(
            place=f"{job.name}/{describe(job).replace('/', '_') or 'job'}", rule=job.name, job=describe(job), key=key_of(job),
            command=job.shellcmd, inputs=[str(f) for f in job.input if str(f) not in makers],
            outputs=[str(f) for f in job.output], local=stays_on_node(dag, job, group) if group.is_group() else [],
            needs=sorted({makers[str(f)] for f in job.input if str(f) in makers}), logs=[str(f) for f in job.log],
            benchmark=str(job.benchmark) if job.benchmark else None,
            requested={
                "mem_mb": resources.get("mem_mb"), "minutes": resources.get("runtime"), "cpus": job.threads,
                "gpu": resources.get("gpu", 0),
            },
        ))  # fmt: skip
    return members


def stays_on_node(dag: Any, job: Any, group: Any) -> list[str]:
    """Return the temporary outputs that only the group's own jobs read: no other node needs them."""
    from snakemake.io import is_flagged

    if dag.workflow.storage_settings.notemp:
        return []
    temporary = [f for f in job.output if is_flagged(f, "temp") and f not in dag.targetfiles]
    inside = [f for f in temporary if not dag.is_needed_tempfile(job, f, outside_of_group_job=group)]
    relative = [f for f in map(str, inside) if not Path(f).is_absolute() and ".." not in Path(f).parts]
    return [f for f in relative if any(f in map(str, other.input) for other in group)]


def record_path(folder: Path, members: list[Member]) -> Path:
    """Return the file of a task's record while it is in the queue; a group's name is its members' digest."""
    if len(members) == 1:
        return folder / f"{members[0].place}.json"
    return folder / "group" / f"{key_of_group(members)}.json"


def name_of(members: list[Member]) -> str:
    """Name a task briefly."""
    first = f"{members[0].rule} {members[0].job}".rstrip()
    return first if len(members) == 1 else f"{first} and {len(members) - 1} more"


def describe(job: Any) -> str:
    """Return a job's wildcards as one text."""
    return " ".join(str(v) for _, v in sorted(job.wildcards_dict.items()))


def key_of(job: Any) -> str:
    """Return a digest of a job's rule, command, outputs and parameters (the code's digest is one of them)."""
    values = [job.name, job.shellcmd, sorted(f"{k}={v}" for k, v in job.params.items()), sorted(map(str, job.output))]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def in_words(
    state: str, member: Member, usage: dict[str, Any] | None, nodes: str, slurm_id: str, log: Path | None
) -> str:
    """Say why a job failed, what it had requested, on which node, and as which Slurm job."""
    logs = [*map(Path, member.logs), *([Path(log)] if log else [])]
    text = "\n".join(line for f in logs for line in tail(f))
    memory = f"({member.requested['mem_mb']} MB requested)"
    reason = FAILED[state]
    if "CUDA out of memory" in text or "torch.OutOfMemoryError" in text:
        reason = "ran out of GPU memory"
    elif state == "OUT_OF_MEMORY" or "memory limit" in text:
        reason = f"ran out of memory {memory}"
    elif usage and usage["status"] in (-9, 137):
        reason = f"was killed, most likely for its memory {memory}"
    elif state == "TIMEOUT":
        reason += f" ({member.requested['minutes']} minutes requested)"
    elif state == "FAILED" and usage:
        reason += f" (exit status {usage['status']})"
    node = (usage or {}).get("node") or nodes
    where = f" on {node}" if node else ""
    return f"{member.rule} {member.job} {reason}{where}: Slurm job {slurm_id}."
