"""Find errors before any job is submitted: in partitions, GPU types, versions and disk space."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from mllm.core.compute import version
from mllm.execution import slurm_plugin, slurm_resources

# Compute capabilities below 7.5: torch 2.13's wheel has code for sm_75 and later.
TOO_OLD = ("titan", "gtx", "k80", "m40", "p100", "p40", "v100")


def problems(workflow: Any, results: Path, disk_mb: int) -> list[str]:
    """Return one line for each reason why a run's submitted jobs cannot work on this cluster."""
    found = slurm_plugin.problems() + settings(workflow.executor_settings)
    wanted: dict[str, set[str]] = {}  # partition -> GPU types
    seen = set()
    for job in workflow.dag.needrun_jobs():
        if job.name in seen or job.is_local or job.is_norun:
            continue
        seen.add(job.name)
        types = job.resources.get(slurm_resources.TYPES) if job.resources.get("gpu") else None
        if types:
            add_types(wanted, types)
        else:
            for partition in str(job.resources.get("slurm_partition") or "").split(","):
                wanted.setdefault(partition, set())
    return found + partitions(wanted) + disk(results, disk_mb)


def add_types(wanted: dict[str, set[str]], site: str) -> None:
    """Add a site's GPU types to the wanted ones; each must be in at least one of its partitions."""
    for name, _, names in slurm_resources.parse_types(site):
        types = wanted.setdefault(names, set())
        if name != "any":
            types.add(name.removeprefix("gres/").lower())


def partitions(wanted: dict[str, set[str]]) -> list[str]:
    """Say which wanted partitions and GPU types this cluster lacks; names joined by commas are alternatives."""
    try:
        done = subprocess.run(
            ["sinfo", "--noheader", "--format=%R|%G"], capture_output=True, text=True, timeout=30, check=True
        )
    except FileNotFoundError:
        return ["sinfo is not installed. Fix: run on a login node of a Slurm cluster"]
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        return [f"sinfo does not answer: {error.stderr or error!s}"]
    there: dict[str, set[str]] = {}
    for line in done.stdout.splitlines():
        name, gres = line.split("|", 1)
        there.setdefault(name, set()).update(t.lower() for t in re.findall(r"gpu:([\w.-]+?):\d", gres))
    found = []
    for names, types in wanted.items():
        known = [n for n in names.split(",") if n in there]
        for name in [n for n in names.split(",") if n and n not in there]:
            found.append(f"partition {name!r} does not exist (expected one of {', '.join(sorted(there))})")
        have = {t for n in known for t in there[n]}
        for name in sorted(types):
            if name.startswith(TOO_OLD):
                found.append(
                    f"GPU type {name!r} is too old for torch {version('torch')} (compute capability 7.5 or later)"
                )
            elif known and name not in have:
                listed = ", ".join(sorted(have)) or "no GPU type"
                found.append(f"no GPU of type {name!r} in {names} (expected one of: {listed})")
    return list(dict.fromkeys(found))


def settings(chosen: Any) -> list[str]:
    """Refuse settings of the plugin that this executor cannot work with."""
    if not getattr(chosen, "array_jobs", None):
        return []
    return [
        f"slurm-array-jobs: array jobs leave no record, and their finished outputs can be deleted (found"
        f" {chosen.array_jobs!r}, expected nothing). Fix: remove the key; short jobs share an allocation by groups"
        " (docs/slurm.md)"
    ]


def disk(results: Path, needed_mb: int = 1000) -> list[str]:
    """Check that there is disk space for the models; quotas are not visible on every file system."""
    folder = next(p for p in [results, *results.parents] if p.exists())
    free = shutil.disk_usage(folder).free / 2**20
    if free >= needed_mb:
        return []
    return [
        f"{folder.resolve()}: too little disk space (found {free:,.0f} MB, expected about {needed_mb:,} MB)."
        " Fix: set MLLM_SCRATCH=/another/disk, which puts results there"
    ]
