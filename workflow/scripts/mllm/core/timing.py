"""Time, memory and speed of what computes."""

import contextlib
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch


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
    device = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return {"peak_memory_bytes": host, "peak_gpu_memory_bytes": device}


def dtype_of(wanted: str) -> str:
    """The number format to predict in: bfloat16 on GPUs that have it, else float32, unless another is wanted."""
    if wanted != "auto":
        return wanted
    return "bfloat16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "float32"


def peak_flops(dtype: str, seconds: float = 0.3) -> float:
    """Operations per second of a large square matrix product, measured: the best of as many as fit into ``seconds``."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = 8192 if device == "cuda" else 1024
    matrix = torch.ones(size, size, dtype=getattr(torch, dtype), device=device)
    best, end = math.inf, time.perf_counter() + seconds
    while best == math.inf or time.perf_counter() < end:
        begin = time.perf_counter()
        product = matrix @ matrix
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begin)
    del product
    return 2 * size**3 / best


def device_name() -> str:
    """The GPU's name, or cpu."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
