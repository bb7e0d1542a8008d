"""Choose what a Slurm job requests: GPU type and partitions from the site's list, and a group's resources."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError

from mllm.execution.resources import START_MINUTES

FOLLOW = ("mem", "disk", "tmpdir")  # texts that follow from the numbers, or from the node
UNKNOWN = "<TBD>"  # Snakemake's value for resources that depend on files not made yet
TYPES = "gpu_types"  # of the profile: the site's GPU types; `gpu` is the number of GPUs that a job requests


def submits(workflow: Any) -> bool:
    """Tell whether jobs are submitted to a cluster; in a dry run, whether the profile is for a cluster."""
    defaults = workflow.resource_settings.default_resources
    return bool(workflow.non_local_exec or (workflow.dryrun and defaults and "slurm_partition" in dict(defaults)))


def parse_types(text: str) -> list[tuple[str, int, str]]:
    """``"A100:40@a,b H200:141@c"`` -> [(type, GB, partitions)]."""
    found = []
    for word in text.split():
        match = re.fullmatch(r"((?:gres/)?[\w.-]+):(\d+)@([\w,.-]+)", word)
        if not match:
            raise WorkflowError(f"profile: gpu_types: found {word!r}, expected TYPE:GB@PARTITION[,PARTITION…]")
        found.append((match[1], int(match[2]), match[3]))
    return found


def choose_gpu(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return resources with GPU type and partitions: the first type whose memory fits the job, else the largest type.

    The profile's ``gpu_types`` resource lists TYPE:GB@PARTITIONS in order of preference. ``gres/TYPE`` requests by
    --gres; the type ``any`` requests any GPU. Without ``gpu_types``, a job requests any GPU in its partition.
    """
    chosen = {**asked}
    if "@" in str(chosen.get("gpus", "")):  # its name up to 0.1.0; Slurm's plugin reads gpus as a number
        raise WorkflowError(f"profile: gpus: found {chosen['gpus']!r}, expected gpu_types. Fix: rename it to gpu_types")
    site = chosen.get(TYPES)
    if not site:
        return chosen
    number = chosen.get("gpu") or 0
    if not number:
        return chosen
    types = parse_types(site)
    fitting = [t for t in types if t[1] * 1024 >= (chosen.get("gpu_mb") or 0)]
    name, _, chosen["slurm_partition"] = fitting[0] if fitting else max(types, key=lambda t: t[1])
    chosen["nodes"] = 1  # the processes of a job connect on one machine
    chosen.pop("gpu_model", None)
    if name.startswith("gres/"):
        # Both together are an error; the submission removes `gpu`, which counts against the profile's limit until then.
        chosen["gres"] = f"gpu:{name.removeprefix('gres/')}:{number}"
    elif name != "any":
        chosen["gpu_model"] = name
    return chosen


def in_turn(members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Combine the resources of jobs that run one after the other: the largest of each, and the sum of their times.

    Raises:
        WorkflowError: members without a GPU want different partitions, accounts or similar.
    """
    found: dict[str, Any] = {}
    with_gpu = [m for m in members if m.get("gpu")]
    for name in dict.fromkeys(key for member in members for key in member if key not in FOLLOW):
        values = [m[name] for m in members if name in m and str(m[name]) != UNKNOWN]
        if not values:
            continue
        if all(isinstance(v, int) for v in values):
            found[name] = max(values)
        elif len(set(values)) == 1:
            found[name] = values[0]
        elif not with_gpu or name not in (
            "slurm_partition",
            "gpu_model",
            "gres",
        ):  # these follow from the largest GPU job
            raise WorkflowError(f"a group's jobs want different {name}: {', '.join(sorted(map(str, set(values))))}")
    minutes = sorted(m["runtime"] for m in members if m.get("runtime"))
    if minutes:  # every job's time includes an allowance for the start, which a group needs once
        found["runtime"] = minutes[-1] + sum(max(1, m - START_MINUTES) for m in minutes[:-1])
    found["_nodes"] = 1
    return choose_gpu(found)


def shown(asked: Mapping[str, Any]) -> str:
    """Describe where a job would be submitted, briefly; empty without a partition or a time."""
    if not asked.get("slurm_partition") or not asked.get("runtime"):
        return ""
    gpus = f"{asked.get('gpu')} GPU {asked.get('gpu_model') or asked.get('gres') or ''}".rstrip() + ", "
    return f"[{asked['slurm_partition']}: {gpus if asked.get('gpu') else ''}{asked.get('mem_mb')} MB, {asked.get('runtime')} min]"
