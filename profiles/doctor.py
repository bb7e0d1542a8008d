"""Check this machine and, where there is one, the cluster against a profile: one line for each thing that is wrong."""

import argparse
import shutil
import sys
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow/scripts"))

from mllm import cli, machine, preflight


def main(arguments: argparse.Namespace) -> None:
    print(
        f"Python {sys.version.split()[0]}, torch {machine.version('torch')}, snakemake {machine.version('snakemake')}"
    )
    found = preflight.versions() + preflight.disk(Path("results"))
    path = arguments.profile / "config.yaml"
    try:
        profile = yaml.safe_load(path.read_text())
    except (FileNotFoundError, yaml.YAMLError) as error:
        raise cli.Failure(f"{path}: cannot be read: {error}") from None
    if profile.get("executor") == "slurm":
        found += preflight.partitions(of_profile(profile))
    found += this_gpu() if machine.has_gpu() else []
    for line in found:
        print(f"✗ {line}")
    if found:
        raise cli.Failure(f"{len(found)} of the things that a run needs are missing, for {path}")
    where = "this cluster" if shutil.which("sinfo") else "this machine"
    print(f"✓ {where} has all that {path} asks for")


def of_profile(profile: dict) -> dict[str, set[str]]:
    """Partitions that a profile names -> GPU types wanted there."""
    wanted: dict[str, set[str]] = {}
    for resources in [profile.get("default-resources") or {}, *(profile.get("set-resources") or {}).values()]:
        if resources.get("slurm_partition"):
            for name in str(resources["slurm_partition"]).split(","):
                wanted.setdefault(name, set())
        if resources.get("gpus"):
            preflight.add_gpus(wanted, resources["gpus"])
    return wanted


def this_gpu() -> list[str]:
    """Whether torch has code for this machine's GPU."""
    import torch

    problem = machine.gpu_problem() if torch.cuda.is_available() else "torch sees no GPU, though the driver is loaded"
    return [problem] if problem else []


if __name__ == "__main__":
    parser = cli.parser(__doc__)
    parser.add_argument("--profile", type=Path, default=Path("profiles/slurm"), help="default: %(default)s")
    cli.run(main, parser.parse_args())
