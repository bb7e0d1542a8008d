"""What this machine can run at once: cores, GPUs, memory, as limits that Snakemake's scheduler keeps."""

import os
from pathlib import Path
from typing import Any

GPUS = "MLLM_GPUS"  # number of GPUs to use instead of those that are found


def install(workflow: Any) -> None:
    """Limit local jobs to this machine's cores, GPUs and memory, each where the command line or profile says nothing.

    Submitted jobs have no limits here: the cluster has its own.
    """
    if workflow.resource_settings.nodes is not None or not workflow.is_main_process:
        return
    # Snakemake has copied its settings by now: what its scheduler keeps to are the registered resources.
    said = {name for name, resource in workflow.global_resources.items() if resource.value is not None}
    limits = {"_cores": cores(), "gpu": min(1, len(gpus())), "mem_mb": memory_mb()}
    for name in limits.keys() - said:
        workflow.register_resource(name, limits[name])
    if workflow.resource_settings.cores is None:
        workflow.resource_settings.cores = limits["_cores"]  # threads of the local executor


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


def gpus() -> list[str]:
    """The GPUs that jobs may use, as CUDA names them; none without NVIDIA's driver."""
    wanted = os.environ.get(GPUS)
    if wanted is not None:
        return [str(i) for i in range(int(wanted))]
    cards = sorted((f.name.removeprefix("nvidia") for f in Path("/dev").glob("nvidia[0-9]*")), key=int)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None or not cards:
        return cards
    return [name for name in visible.replace(" ", "").split(",") if name not in ("", "-1")]


def memory_mb() -> int:
    """Memory of this machine, or of the control group that this process is confined to."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.exists() else "max"
    return (min(total, int(text)) if text.isdigit() else total) // 2**20
