"""What this machine has, without importing anything heavy."""

import contextlib
import ctypes
import os
import re
import sys
from importlib import metadata
from pathlib import Path


def has_gpu() -> bool:
    """Whether NVIDIA's driver is loaded here."""
    return Path("/dev/nvidiactl").exists()


def version(package: str) -> str:
    """Installed version of a package, without importing it."""
    return metadata.version(package)


def use_this_python() -> None:
    """Let scripts run under the Python that runs Snakemake, whether its environment is activated or not."""
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def keep_freed_memory() -> None:
    """Let freed memory be used again instead of given back: large tensors that come and go are twice as fast then.

    By default, glibc maps every large block anew, and the kernel fills each of its pages with zeros.
    """
    with contextlib.suppress(OSError, AttributeError):  # no glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def gpu_problem() -> str:
    """Why torch cannot compute on this machine's GPU; empty where it can, or where there is none."""
    import torch

    if not torch.cuda.is_available():
        return ""
    major, minor = torch.cuda.get_device_capability()
    # Code for one capability runs on later ones of the same major number.
    built = [re.fullmatch(r"sm_(\d+)(\d)[a-z]?", name) for name in torch.cuda.get_arch_list()]
    if any(b and int(b[1]) == major and int(b[2]) <= minor for b in built):
        return ""
    return (
        f"{torch.cuda.get_device_name()} (sm_{major}{minor}) is too old or too new for torch {torch.__version__}, which has"
        f" code for {', '.join(torch.cuda.get_arch_list())}: name other GPU types in the profile"
    )


def use_scratch() -> None:
    """With MLLM_SCRATCH, results and caches live there: homes on clusters have small quotas."""
    scratch = os.environ.get("MLLM_SCRATCH")
    if not scratch:
        return
    home = Path(scratch, "mllm").absolute()
    (home / "results").mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("XDG_CACHE_HOME", str(home / "cache"))
    results = Path("results")
    if not results.is_symlink() and not results.exists():
        results.symlink_to(home / "results")
