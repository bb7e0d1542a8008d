"""Wall-clock time, peak memory and device of a computation."""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def timed(cost: dict[str, Any], name: str) -> Iterator[None]:
    """Store the wall-clock seconds of a block in ``cost[name]``."""
    begin = time.perf_counter()
    yield
    cost[name] = max(round(time.perf_counter() - begin, 6), 1e-6)


def peak_memory() -> dict[str, int]:
    """Return the peak memory so far, in bytes: of the process, and of the GPU if there is one."""
    # Not getrusage's value, which starts at the parent process's.
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    host = int(line.split()[1]) * 1024
    torch = sys.modules.get("torch")  # without an import of torch, no GPU was used
    device = torch.cuda.max_memory_allocated() if torch and torch.cuda.is_available() else 0
    return {"peak_memory_bytes": host, "peak_gpu_memory_bytes": device}


def device_name() -> str:
    """Return the GPU's name, or cpu."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
