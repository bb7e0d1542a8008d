"""Facts about this machine and its GPU. Importing this module loads no heavy library."""

import contextlib
import ctypes
import functools
import os
import re
import time
from importlib import metadata
from pathlib import Path


def has_gpu() -> bool:
    """Return whether NVIDIA's driver is loaded here."""
    return Path("/dev/nvidiactl").exists()


@functools.cache
def version(package: str) -> str:
    """Return the installed version of a package, without importing it."""
    return metadata.version(package)


def seconds_since_start() -> float:
    """Return the seconds since this process started, including the interpreter's own start."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return round(time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"), 2)


def keep_freed_memory() -> None:
    """Reuse freed memory instead of returning it to the system: short-lived large tensors are twice as fast then.

    By default, glibc maps every large block anew, and the kernel fills each of its pages with zeros.
    """
    with contextlib.suppress(OSError, AttributeError):  # no glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def gpu_problem(needed_mb: float = 0, gpus: int = 1) -> str:
    """Return why torch cannot compute on this process's GPU; empty if it can, or if there is none.

    Args:
        needed_mb: smallest memory that the model needs, in MB.
        gpus: number of GPUs that the model spreads over.
    """
    import torch

    if not torch.cuda.is_available():
        return _no_gpu()
    major, minor = torch.cuda.get_device_capability()
    name = torch.cuda.get_device_name()
    # Code for one compute capability also runs on later ones of the same major number.
    built = [re.fullmatch(r"sm_(\d+)(\d)[a-z]?", name) for name in torch.cuda.get_arch_list()]
    if not any(b and int(b[1]) == major and int(b[2]) <= minor for b in built):
        return (
            f"{name}: torch {torch.__version__} has no code for it (found sm_{major}{minor}, expected one of"
            f" {', '.join(torch.cuda.get_arch_list())}). Fix: name other GPU types in the profile"
        )
    # A query makes a context on the GPU, so that each of several processes queries its own only.
    asked = range(min(gpus, torch.cuda.device_count())) if gpus > 1 else [torch.cuda.current_device()]
    free = sum(torch.cuda.mem_get_info(i)[0] for i in asked) / 2**20
    if free < needed_mb:
        return (
            f"{name}: too little free memory for the model (found {free:,.0f} MB, expected at least {needed_mb:,.0f}"
            " MB). Fix: put larger GPUs first in the profile, raise the model's gpus, or request an exclusive GPU if"
            " others compute on it"
        )
    return ""


def _no_gpu() -> str:
    """Return why torch sees no GPU although one was requested or exists; falling back to a CPU would take hours."""
    given = os.environ.get("SLURM_JOB_GPUS") or os.environ.get("SLURM_GPUS_ON_NODE") or ""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if os.environ.get("MLLM_ALLOW_CPU") or hidden or not (given or has_gpu()):
        return ""
    driver = "NVIDIA's driver loaded" if has_gpu() else "no NVIDIA driver loaded"
    which = f"Slurm gave this job a GPU ({given})" if given else "this machine has a GPU"
    return (
        f"{os.uname().nodename}: {which}, but torch {version('torch')} sees none (found {driver}). Fix: run nvidia-smi"
        " and `make doctor` there, exclude the node (slurm_extra: --exclude=NODE), or set MLLM_ALLOW_CPU=1"
    )
