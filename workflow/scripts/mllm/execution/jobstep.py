"""Run a record's commands on a compute node, one after the other, and write how each ended and what it used.

A submitted job needs only this file, its neighbours and the standard library. ``python -I`` starts it, since this
folder may have modules with the names of Python's own. Each script costs one start of Python, not a second and third
Snakemake; on network file systems the difference is many seconds per job. A record of one member is a job, a record of
several a group in one allocation.
"""

import contextlib
import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mllm.core.node_cache import near_environment
from mllm.execution.workplace import Fields, bring_home, forget_weights, remove, workplace


def main(record_path: Path, key: str) -> int:
    record = json.loads(record_path.read_text())
    if record["key"] != key:
        print(f"{record_path}: another job replaced this one; nothing was done", file=sys.stderr)
        return 1
    return Step(record_path, record).run()


class Step:
    """One allocation's members, run in turn; a failed member stops only the members that need it."""

    def __init__(self, record_path: Path, record: Fields):
        self.record_path, self.record, self.members = record_path, record, record["members"]
        self.folder = record_path.parent.parent
        self.slurm_id = os.environ["SLURM_JOB_ID"]
        self.stopped, self.process = False, 0
        # Slurm signals all processes of the job; the command ends by itself, and its usage is still written.
        signal.signal(signal.SIGTERM, self.stop)

    def stop(self, *_: object) -> None:
        self.stopped = True
        if self.process:
            os.kill(self.process, signal.SIGTERM)

    def run(self) -> int:
        begin = time.time()
        todo = still_to_do(self.members, self.folder)
        ended: dict[int, int] = {}
        os.environ["PATH"] = f"{nearest_bin()}{os.pathsep}{os.environ.get('PATH', '')}"
        with contextlib.ExitStack() as stack:
            environment = stack.enter_context(warm(len(todo)))
            root = stack.enter_context(workplace([p for i in todo for p in self.members[i]["local"]], self.folder))
            for i in todo:
                if self.stopped:
                    break
                if not any(ended.get(j) for j in self.members[i]["needs"]):
                    ended[i] = self.run_member(self.members[i], root, environment)
                else:
                    ended[i] = 1
                forget_weights(self.members, todo, ended, root)
        status = 143 if self.stopped and len(ended) < len(todo) else next((s for s in ended.values() if s), 0)
        if len(self.members) > 1:
            facts = {"status": status, "seconds": round(time.time() - begin, 2), **self.where()}
            write(usage_path(self.record_path, self.slurm_id), json.dumps(facts, indent=2) + "\n")
        return status

    def run_member(self, member: Fields, root: Path, environment: dict[str, str]) -> int:
        """Run a command in the work folder; return its exit status, or 128 plus the signal that ended it."""
        # As in Snakemake itself: a file with a final name was made by this job.
        for output in map(Path, member["outputs"]):
            for path in {output, root / output}:
                remove(path)
                path.parent.mkdir(parents=True, exist_ok=True)
        if len(self.members) > 1:
            print(f"== {member['rule']} {member['job']}", flush=True)
            if not member["requested"].get("gpu"):  # the allocation's GPU is another member's
                environment = {**environment, "CUDA_VISIBLE_DEVICES": ""}
        start = time.time()
        command = ["bash", "-c", f"set -euo pipefail; {member['command']}"]
        process = subprocess.Popen(
            command, env=environment, cwd=root
        )  # keep a reference until it ends: its finalizer would wait for it
        self.process = process.pid
        if self.stopped:
            process.terminate()
        _, waited, used = os.wait4(process.pid, 0)
        status = process.returncode = os.waitstatus_to_exitcode(waited)
        seconds = round(time.time() - start, 2)
        cpu, peak = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
        if warm_use := usage_of_warm(environment, self.process):
            cpu, peak = cpu + warm_use[0], max(peak, warm_use[1])
        self.process = 0
        if status == 0:
            bring_home(member, root)
            if member["benchmark"]:
                write(Path(member["benchmark"]), benchmark(seconds, cpu, peak))
        facts = {
            "status": status, "key": member["key"], "submitted": self.record["submitted"], "seconds": seconds,
            "cpu_seconds": round(cpu, 2), "peak_mb": int(peak), **self.where(),
        }  # fmt: skip
        write(usage_path(self.folder / f"{member['place']}.json", self.slurm_id), json.dumps(facts, indent=2) + "\n")
        return status if status >= 0 else 128 - status

    def where(self) -> Fields:
        restarts = int(os.environ.get("SLURM_RESTART_COUNT", 0))
        return {"node": os.environ.get("SLURMD_NODENAME", socket.gethostname()), "restarts": restarts}


def still_to_do(members: list[Fields], folder: Path) -> list[int]:
    """Return the positions of unfinished members, and of members whose lost weights they need.

    A requeued group starts here again: its finished outputs are on the disk, with their usage files beside the records.
    """
    todo = {i for i, member in enumerate(members) if not finished(member, folder)}
    for i in reversed(range(len(members))):  # members come in an order in which each follows what it needs
        if i in todo:
            todo |= {j for j in members[i]["needs"] if members[j]["local"]}
    return sorted(todo)


def finished(member: Fields, folder: Path) -> bool:
    """Tell whether an allocation finished exactly this member, and its outputs exist."""
    if not all(Path(f).exists() for f in member["outputs"] if f not in member["local"]):
        return False
    for path in (folder / f"{member['place']}.json").parent.glob(f"{Path(member['place']).name}.*.usage"):
        with contextlib.suppress(OSError, ValueError):
            facts = json.loads(path.read_text())
            if facts["status"] == 0 and facts.get("key") == member["key"]:
                return True
    return False


def warm_starts() -> Any:
    """Return the module that starts scripts from a warm process; None if it is missing, and all start cold."""
    try:
        return importlib.import_module("mllm.execution.warm")
    except ImportError:
        return None


@contextlib.contextmanager
def warm(number: int) -> Iterator[dict[str, str]]:
    """Yield an environment in which several members' scripts start warm; for one member, this process's own."""
    starts = warm_starts() if number > 1 else None
    if starts is None:
        yield dict(os.environ)
        return
    with starts.offered(shutil.which("python") or sys.executable) as environment:
        yield environment


def usage_of_warm(environment: dict[str, str], shell: int) -> tuple[float, float] | None:
    """Return CPU seconds and peak MB of a shell's warm scripts, which are no children of this process."""
    starts = warm_starts() if "mllm-warm-" in environment["PATH"] else None
    if starts is None or (folder := starts.folder_of(environment)) is None:
        return None
    used = starts.usage(folder, shell)
    return (used.cpu_seconds, used.peak_mb) if used else None


def benchmark(seconds: float, cpu: float, peak: float) -> str:
    """Return Snakemake's benchmark file for a job that Snakemake did not run: times, largest memory in MiB."""
    hours, rest = divmod(int(seconds), 3600)
    values = {
        "s": f"{seconds:.2f}", "h:m:s": f"{hours}:{rest // 60:02}:{rest % 60:02}", "max_rss": f"{peak:.2f}",
        "max_vms": "NA", "max_uss": "NA", "max_pss": "NA", "io_in": "NA", "io_out": "NA",
        "mean_load": f"{100 * cpu / max(seconds, 0.01):.2f}", "cpu_time": f"{cpu:.2f}",
    }  # fmt: skip
    return "\t".join(values) + "\n" + "\t".join(values.values()) + "\n"


def nearest_bin() -> Path:
    """Return the folder of this job's Python: in its environment, or in a copy of it on this node's own disk."""
    own = Path(sys.prefix)
    return (near_environment(own) if os.environ.get("MLLM_NODE_CACHE") else own) / "bin"


def usage_path(record_path: Path, slurm_id: str) -> Path:
    """Return the file to which a job writes its usage, beside its record."""
    return record_path.with_name(f"{record_path.name.removesuffix('.json')}.{slurm_id}.usage")


def write(path: Path, text: str) -> None:
    """Write a file completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    partial.write_text(text)
    partial.replace(path)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).absolute(), sys.argv[2]))
