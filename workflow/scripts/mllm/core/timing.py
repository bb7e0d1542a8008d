"""Time, memory and speed of what computes."""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def timed(cost: dict[str, Any], name: str) -> Iterator[None]:
    """Put the wall-clock seconds of a block into ``cost``."""
    begin = time.perf_counter()
    yield
    cost[name] = max(round(time.perf_counter() - begin, 6), 1e-6)


def peak_memory() -> dict[str, int]:
    """Largest memory so far, in bytes: of the process, and of the GPU where there is one."""
    # Not getrusage's, which begins with that of the process that started this one.
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    host = int(line.split()[1]) * 1024
    torch = sys.modules.get("torch")  # who did not import it used no GPU
    device = torch.cuda.max_memory_allocated() if torch and torch.cuda.is_available() else 0
    return {"peak_memory_bytes": host, "peak_gpu_memory_bytes": device}


def device_name() -> str:
    """The GPU's name, or cpu."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
