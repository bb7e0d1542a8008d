"""Check this machine, and the cluster if there is one, against a profile: one line per check, with its fix.

✓ is correct, ✗ stops a run, ! concerns some runs only.
"""

import argparse
import os
import shutil
import sys
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "workflow/scripts"))

from mllm.core import compute, script  # noqa: E402
from mllm.core.errors import Failure  # noqa: E402
from mllm.execution import preflight, slurm_plugin  # noqa: E402

EXECUTORS = ("local", "slurm")
# Sources of data and checkpoints; HF_ENDPOINT is the hub client's own variable for a mirror.
HUB = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
UCI = "https://archive.ics.uci.edu"


class Line(NamedTuple):
    """One check: its subject, what was found, and the fix, if one is needed."""

    thing: str
    found: str
    todo: str = ""
    fatal: bool = True

    def __str__(self) -> str:
        mark = "✓" if not self.todo else "✗" if self.fatal else "!"
        return f"{mark} {self.thing}: {self.found}" + (f"\n    → {self.todo}" if self.todo else "")


def main(arguments: argparse.Namespace) -> None:
    path = arguments.profile / "config.yaml"
    profile, line = read_profile(path)
    lines = [line]
    print(line)
    for line in [*software(), *profile_needs(profile), gpu(), disk(), *network(arguments.timeout)]:
        print(line, flush=True)
        lines.append(line)
    wrong = [line for line in lines if line.todo and line.fatal]
    if wrong:
        count = f"{len(wrong)} check{'s' if len(wrong) > 1 else ''}"
        raise Failure(f"{path}: {count} failed. Fix: see the lines with ✗ above")
    where = "this cluster" if shutil.which("sinfo") else "this machine"
    print(f"✓ {where} has everything that {path} needs")


def read_profile(path: Path) -> tuple[dict, Line]:
    try:
        profile = yaml.safe_load(path.read_text())
    except (FileNotFoundError, yaml.YAMLError) as error:
        raise Failure(
            f"{path}: cannot read the profile ({error}). Fix: name its folder: make doctor PROFILE=profiles/slurm"
        ) from None
    executor = profile.get("executor", "local")
    if executor in EXECUTORS:
        return profile, Line("profile", f"{path} (executor {executor})")
    return profile, Line("profile", f"{path}: executor {executor!r}", f"expected one of {', '.join(EXECUTORS)}")


def software() -> Iterator[Line]:
    """Compare Python and the packages of pyproject.toml with uv.lock, since an environment may be older than its lock."""
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    locked: dict[str, list[str]] = {}  # some packages have another version for another Python
    for package in lock["package"]:
        locked.setdefault(package["name"], []).append(package.get("version", ""))
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    low, high = (3, 11), (3, 14)
    version = sys.version.split()[0]
    good = low <= sys.version_info < high
    yield Line("Python", version, "" if good else "expected 3.11 to 3.13: rm -r .venv; make setup PYTHON=python3.12")
    differ = []
    for name in (dependency.split("=")[0] for dependency in wanted):
        have = compute.version(name).split("+")[0]
        if have not in locked[name]:
            differ.append(f"{name} {have} (locked: {' or '.join(locked[name])})")
    shown = ", ".join(f"{name} {compute.version(name)}" for name in ("snakemake", "torch", "transformers", "mergekit"))
    yield Line("packages", ", ".join(differ) or shown, "rm .venv/.ready; make setup" if differ else "")


def profile_needs(profile: dict) -> Iterator[Line]:
    """Check what a profile for Slurm needs: the plugin, partitions, GPU types."""
    if profile.get("executor") != "slurm":
        return
    plugin = slurm_plugin.problems()
    have = compute.version("snakemake-executor-plugin-slurm")
    yield Line("Slurm plugin", have, plugin[0] if plugin else "")
    wanted = of_profile(profile)
    problems = preflight.partitions(wanted)
    names = sorted({name for names in wanted for name in names.split(",") if name})
    if not problems:
        yield Line("partitions and GPUs", ", ".join(names))
    for problem in problems:
        silent = problem.startswith("sinfo")
        todo = "edit the block at the top of the profile; sinfo -o '%R %G' lists this cluster's partitions and GPUs"
        yield Line("partitions and GPUs", problem.strip().splitlines()[0],
                   "run it on a login node of the cluster, or with PROFILE=profiles/local" if silent else todo)  # fmt: skip


def of_profile(profile: dict) -> dict[str, set[str]]:
    """Return partition of the profile -> GPU types that the profile wants there."""
    wanted: dict[str, set[str]] = {}
    for resources in [profile.get("default-resources") or {}, *(profile.get("set-resources") or {}).values()]:
        if resources.get("slurm_partition"):
            for name in str(resources["slurm_partition"]).split(","):
                wanted.setdefault(name, set())
        if resources.get("gpu_types"):
            preflight.add_types(wanted, resources["gpu_types"])
    return wanted


def gpu() -> Line:
    """Check whether torch has code for this machine's GPU."""
    if not compute.has_gpu():
        return Line(
            "GPU",
            "none; jobs on this machine compute on its CPUs (make gpu-bundle packs the tests for a machine with a GPU)",
        )
    import torch

    if torch.cuda.is_available():
        return Line("GPU", f"{torch.cuda.get_device_name()} (make gpu tests and measures it)", compute.gpu_problem())
    if torch.version.cuda is None:
        return Line("GPU", f"torch {torch.__version__} is built without CUDA", "rm .venv/.ready; make setup")
    return Line(
        "GPU", f"the driver is loaded, but torch {torch.__version__} sees no GPU",
        f"run nvidia-smi; torch needs a driver for CUDA {torch.version.cuda}, and CUDA_VISIBLE_DEVICES must not be empty",
    )  # fmt: skip


def disk() -> Line:
    folder = next(p for p in (Path("results"), Path()) if p.exists())
    free = f"{shutil.disk_usage(folder).free / 1e9:,.1f} GB free in {folder.resolve()}"
    problems = preflight.disk(Path("results"))
    return Line("disk", free, problems[0] if problems else "")


def network(timeout: float) -> Iterator[Line]:
    """Check whether this machine can download; only the download rules need this, and only if files are missing."""
    for thing, url, uses in (("hub", HUB, "models of source: hub"), ("UCI", UCI, "data of source: uci")):
        try:
            request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "mllm-doctor"})
            urllib.request.urlopen(request, timeout=timeout).close()
        except urllib.error.HTTPError:
            pass  # the server answered
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            yield Line(thing, f"{url} does not answer ({reason})",
                       f"only {uses} need it: use a machine with network, a proxy (HTTPS_PROXY), or a mirror"
                       f"{' (HF_ENDPOINT)' if thing == 'hub' else ''}; everything else runs without it", fatal=False)  # fmt: skip
            continue
        token = "" if thing != "hub" else "; HF_TOKEN is set" if os.environ.get("HF_TOKEN") else "; no HF_TOKEN, which gated models need"  # fmt: skip
        yield Line(thing, f"{url} answers{token}")


if __name__ == "__main__":
    parser = script.parser(__doc__)
    parser.add_argument("--profile", type=Path, default=Path("profiles/slurm"), help="default: %(default)s")
    parser.add_argument("--timeout", type=float, default=10, help="seconds to wait for a server (default: %(default)s)")
    script.run(main, parser.parse_args())
