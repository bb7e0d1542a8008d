"""Limit local jobs to this machine's cores, GPUs and memory; Snakemake's scheduler keeps the limits."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mllm.execution import snakemake_patches

GPUS = "MLLM_GPUS"  # number of GPUs to use instead of those found


def install(workflow: Any) -> None:
    """Limit local jobs to this machine's cores, GPUs and memory, unless command line or profile set the limit.

    Submitted jobs have no limits here: the cluster has its own.
    """
    if workflow.resource_settings.nodes is not None or not workflow.is_main_process:
        return
    cards = gpus()
    handed_out = len(cards) > 1 and snakemake_patches.hand_out_gpus(Cards(cards).claim)
    number = len(cards) if handed_out else min(1, len(cards))
    snakemake_patches.limit(workflow, {"_cores": cores(), "gpu": number, "mem_mb": memory_mb()})


class Cards:
    """GPUs that jobs claim and return."""

    def __init__(self, names: list[str]):
        self.free = list(names)
        self.changed = threading.Condition()

    @contextlib.contextmanager
    def claim(self, number: int) -> Iterator[str]:
        """Reserve ``number`` cards for a block; yield the shell command that shows a job only these."""
        with self.changed:
            self.changed.wait_for(lambda: len(self.free) >= number)
            taken, self.free = self.free[:number], self.free[number:]
        try:
            yield f"export CUDA_VISIBLE_DEVICES={','.join(taken)}; " if taken else ""
        finally:
            with self.changed:
                self.free += taken
                self.changed.notify_all()


def cores() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0))


def gpus() -> list[str]:
    """Return the GPUs that jobs may use, as CUDA names them; none without NVIDIA's driver."""
    wanted = os.environ.get(GPUS)
    if wanted is not None:
        return [str(i) for i in range(int(wanted))]
    cards = sorted((f.name.removeprefix("nvidia") for f in Path("/dev").glob("nvidia[0-9]*")), key=int)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None or not cards:
        return cards
    return [name for name in visible.replace(" ", "").split(",") if name not in ("", "-1")]


def memory_mb() -> int:
    """Return the memory of this machine, or of the control group that limits this process, in MiB."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.exists() else "max"
    return (min(total, int(text)) if text.isdigit() else total) // 2**20
