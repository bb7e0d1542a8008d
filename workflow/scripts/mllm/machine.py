"""What this machine has, without importing anything heavy."""

import os
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
