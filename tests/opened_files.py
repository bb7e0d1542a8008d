"""Observe by strace which files a run's jobs open, and which of them their rules declare."""

import json
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Project

CALLS = "open,openat,openat2,clone,clone3,fork,vfork"
LINE = re.compile(r"^(?P<pid>\d+) +(?:<\.\.\. )?(?P<call>\w+)(?P<text>.*) = (?P<result>\d+)(?P<file><.*>)?", re.DOTALL)
SHARED = {
    "data/tokens/": "named by all that they follow from, and made where they are missing",
    "checkpoints/": "of jobs that did not end, named by all that they follow from",
    "predictions/.identities/": "where finished predictions of the same weights are found; each is compared",
}
"""Folders that all jobs share beside what they declare, each with the reason why nothing in them is out of date."""
BESIDE = {
    "predict": (
        r"predictions/[^/]+\.(parquet|cost\.json)",
        "the same predictions under another name are copied; they are found by all that they follow from",
    ),
}
"""Rule -> what its jobs open beside, each with the reason why no job must run where that changes."""
PLAN = """
import contextlib, io, json, sys
from pathlib import Path
from snakemake.api import ConfigSettings, OutputSettings, ResourceSettings, SnakemakeApi
with contextlib.redirect_stdout(io.StringIO()), SnakemakeApi(OutputSettings()) as api:
    workflow = api.workflow(ResourceSettings(cores=1), ConfigSettings(configfiles=[Path(sys.argv[1])]), snakefile=Path("Snakefile"))
    workflow.dag().printrulegraph()
    jobs = [(job.rule.name, log, [*job.input, *job.output]) for job in workflow._workflow.dag.jobs for log in job.log]
print(json.dumps(jobs))
"""


def traced(trace: Path) -> list[str]:
    """Return a prefix for a command with which strace records its opened files; empty if strace cannot run."""
    command = ["strace", "-f", "--seccomp-bpf", "-qq", "-y", "-e", f"trace={CALLS}", "-o", str(trace)]
    works = shutil.which("strace") and not subprocess.run([*command, "true"], capture_output=True).returncode
    return command if works else []


def undeclared(project: "Project", config: str, results: str) -> dict[str, set[str]]:
    """Return, for each observed rule, files under the results that its jobs opened and do not declare.

    A process belongs to the job whose log it, or else its parent, opened first.
    """
    if not project.trace.is_file():
        pytest.skip("no strace here (apt install strace), or it may not trace")
    begin = f"{project.folder.resolve()}/{results}/"
    declared, rules = declarations(project.folder, config, results)
    parents: dict[int, int] = {}
    opened: dict[int, list[str]] = defaultdict(list)
    for pid, child, path in events(project.trace):
        if child:
            parents[child] = pid
        elif path.startswith(begin):
            opened[pid].append(path.removeprefix(begin))
    log_of = {pid: next((name for name in names if name in declared), None) for pid, names in opened.items()}
    found: dict[str, set[str]] = defaultdict(set)
    for pid, names in opened.items():
        while not log_of.get(pid) and pid in parents:
            pid = parents[pid]
        if log := log_of.get(pid):
            rule = rules[log]
            may = {*declared[log], log}
            found[rule] |= {n for n in names if not any(belongs(n, own) for own in may) and not excused(rule, n)}
    return dict(found)


def excused(rule: str, name: str) -> bool:
    """Tell whether a file is on the list of files that jobs may open undeclared, with a reason."""
    return name.startswith(tuple(SHARED)) or bool(re.fullmatch(BESIDE.get(rule, ("(?!)", ""))[0], name))


def declarations(folder: Path, config: str, results: str) -> tuple[dict[str, set[str]], dict[str, str]]:
    """Map each log to its job's inputs, outputs and rule, by Snakemake's own plan; paths are under the results."""
    done = subprocess.run([sys.executable, "-c", PLAN, config], cwd=folder, capture_output=True, text=True, check=True)
    jobs = json.loads(done.stdout.splitlines()[-1])
    inside = f"{results}/"
    files = {log.removeprefix(inside): {f.removeprefix(inside) for f in names} for _, log, names in jobs}
    return files, {log.removeprefix(inside): rule for rule, log, _ in jobs}


def events(trace: Path) -> Iterator[tuple[int, int, str]]:
    """Yield each successful call's process, the process that it started or 0, and the file that it opened or nothing."""
    with trace.open(errors="replace") as lines:
        for line in lines:
            match = LINE.match(line)
            if not match:
                continue
            if "open" in match["call"]:
                yield int(match["pid"]), 0, (match["file"] or "<>")[1:-1]
            else:
                yield int(match["pid"]), int(match["result"]), ""


def belongs(name: str, own: str) -> bool:
    """Tell whether a file is declared, is in a declared folder, or is renamed to one of them once complete."""
    path, declared = Path(name), Path(own)
    partial = f".{declared.name}."
    return (
        path == declared
        or declared in path.parents
        or any(p.name.startswith(partial) and p.parent == declared.parent for p in (path, *path.parents))
    )
