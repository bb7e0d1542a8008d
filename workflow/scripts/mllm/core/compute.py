"""What this machine has, without importing anything heavy."""

import contextlib
import ctypes
import functools
import os
import re
import time
from importlib import metadata
from pathlib import Path


def has_gpu() -> bool:
    """Whether NVIDIA's driver is loaded here."""
    return Path("/dev/nvidiactl").exists()


@functools.cache
def version(package: str) -> str:
    """Installed version of a package, without importing it."""
    return metadata.version(package)


def seconds_since_start() -> float:
    """Since this process was started, its interpreter's own beginning included."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return round(time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"), 2)


def keep_freed_memory() -> None:
    """Let freed memory be used again instead of given back: large tensors that come and go are twice as fast then.

    By default, glibc maps every large block anew, and the kernel fills each of its pages with zeros.
    """
    with contextlib.suppress(OSError, AttributeError):  # no glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def gpu_problem(needed_mb: float = 0, gpus: int = 1) -> str:
    """Why torch cannot compute on the GPU that this process was given; empty where it can, or where there is none.

    Args:
        needed_mb: memory that the model takes at least.
        gpus: how many of them it is spread over.
    """
    import torch

    if not torch.cuda.is_available():
        return _no_gpu()
    major, minor = torch.cuda.get_device_capability()
    name = torch.cuda.get_device_name()
    # Code for one capability runs on later ones of the same major number.
    built = [re.fullmatch(r"sm_(\d+)(\d)[a-z]?", name) for name in torch.cuda.get_arch_list()]
    if not any(b and int(b[1]) == major and int(b[2]) <= minor for b in built):
        return (
            f"{name} (sm_{major}{minor}) is too old or too new for torch {torch.__version__}, which has code for"
            f" {', '.join(torch.cuda.get_arch_list())}: name other GPU types in the profile"
        )
    # Asking a GPU makes a context on it: of several processes, each asks its own.
    asked = range(min(gpus, torch.cuda.device_count())) if gpus > 1 else [torch.cuda.current_device()]
    free = sum(torch.cuda.mem_get_info(i)[0] for i in asked) / 2**20
    if free < needed_mb:
        return (
            f"{name}: {free:,.0f} MB are free, the model takes {needed_mb:,.0f} at least: larger GPUs first in the"
            " profile, or more of them (gpus: of the model); if others compute on it too, ask for it alone"
        )
    return ""


def _no_gpu() -> str:
    """A GPU was asked for, or is there, and torch does not see it: hours on a CPU are no answer to that."""
    given = os.environ.get("SLURM_JOB_GPUS") or os.environ.get("SLURM_GPUS_ON_NODE") or ""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if os.environ.get("MLLM_ALLOW_CPU") or hidden or not (given or has_gpu()):
        return ""
    found = "its driver is loaded" if has_gpu() else "NVIDIA's driver is not loaded"
    which = f"Slurm gave this job a GPU ({given})" if given else "this machine has a GPU"
    return (
        f"{which}, but torch {version('torch')} sees none: {found} on {os.uname().nodename}; look at nvidia-smi and"
        " `make doctor` there, leave the node out (slurm_extra: --exclude=NODE), or set MLLM_ALLOW_CPU=1"
    )
