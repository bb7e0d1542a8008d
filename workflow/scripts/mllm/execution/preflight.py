"""What can be known to fail before any job is submitted: partitions, GPU types, versions, disk."""

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
    """One line for each reason why the submitted jobs of a run cannot work on this cluster."""
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
    """A type must be in one of its partitions at least: it is asked for in all of them at once."""
    for name, _, names in slurm_resources.parse_types(site):
        types = wanted.setdefault(names, set())
        if name != "any":
            types.add(name.removeprefix("gres/").lower())


def partitions(wanted: dict[str, set[str]]) -> list[str]:
    """What this cluster lacks of the wanted partitions (names joined by commas are alternatives) and GPU types."""
    try:
        done = subprocess.run(
            ["sinfo", "--noheader", "--format=%R|%G"], capture_output=True, text=True, timeout=30, check=True
        )
    except FileNotFoundError:
        return ["sinfo is not installed: is this a login node of a Slurm cluster?"]
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
            found.append(f"partition {name!r} does not exist; this cluster has {', '.join(sorted(there))}")
        have = {t for n in known for t in there[n]}
        for name in sorted(types):
            if name.startswith(TOO_OLD):
                found.append(
                    f"GPU type {name!r} is too old for torch {version('torch')} (compute capability 7.5 or later)"
                )
            elif known and name not in have:
                listed = ", ".join(sorted(have)) or "no GPU type"
                found.append(f"no GPU of type {name!r} in {names}; there: {listed}")
    return list(dict.fromkeys(found))


def settings(chosen: Any) -> list[str]:
    """Settings of the plugin that this executor cannot keep its promises under."""
    if not getattr(chosen, "array_jobs", None):
        return []
    return [
        f"slurm-array-jobs: found {chosen.array_jobs!r}, expected nothing: array jobs leave no record, and their finished"
        " outputs can be deleted. Fix: remove the key; short jobs share an allocation by groups (docs/slurm.md)"
    ]


def disk(results: Path, needed_mb: int = 1000) -> list[str]:
    """Whether there is room for the models; quotas are not visible on every file system."""
    folder = next(p for p in [results, *results.parents] if p.exists())
    free = shutil.disk_usage(folder).free / 2**20
    if free >= needed_mb:
        return []
    return [
        f"{folder.resolve()} has {free:,.0f} MB left; this experiment needs about {needed_mb:,} MB"
        " (MLLM_SCRATCH=/another/disk puts results there)"
    ]
