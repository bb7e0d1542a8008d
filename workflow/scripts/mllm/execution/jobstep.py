"""Run one job's command on a compute node and write down how it ended and what it used.

A submitted job is this file and the standard library alone (``python -I``: this folder has modules named as Python's
own): Python's start, not a second and third Snakemake, stands between the node and the script (on network file systems
the difference is many seconds a job).
"""

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path


def main(record_path: Path, key: str) -> int:
    record = json.loads(record_path.read_text())
    if record["key"] != key:
        print(f"{record_path}: another job took this one's place; nothing done", file=sys.stderr)
        return 1
    # As Snakemake itself does: what stands under a final name afterwards was made by this job.
    for output in map(Path, record["outputs"]):
        if output.is_dir() and not output.is_symlink():
            shutil.rmtree(output)
        else:
            output.unlink(missing_ok=True)
        output.parent.mkdir(parents=True, exist_ok=True)
    start = time.time()
    environment = {**os.environ, "PATH": f"{nearest_bin()}{os.pathsep}{os.environ.get('PATH', '')}"}
    process = subprocess.Popen(["bash", "-c", f"set -euo pipefail; {record['command']}"], env=environment)
    # Slurm signals the whole job; the command ends by itself, and what it used is still written down.
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    status = process.wait()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = round(time.time() - start, 2)
    if status == 0 and record.get("benchmark"):
        write(Path(record["benchmark"]), benchmark(seconds, used))
    write(usage_path(record_path, os.environ["SLURM_JOB_ID"]), json.dumps({
        "status": status,
        "seconds": seconds,
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 2),
        "peak_mb": used.ru_maxrss // 1024,
        "node": os.environ.get("SLURMD_NODENAME", socket.gethostname()),
        "restarts": int(os.environ.get("SLURM_RESTART_COUNT", 0)),
    }, indent=2) + "\n")  # fmt: skip
    return status if status >= 0 else 128 - status


def benchmark(seconds: float, used: resource.struct_rusage) -> str:
    """Snakemake's benchmark file of a job that it did not run itself: time, largest memory in MiB, processor time."""
    cpu = used.ru_utime + used.ru_stime
    hours, rest = divmod(int(seconds), 3600)
    values = {
        "s": f"{seconds:.2f}", "h:m:s": f"{hours}:{rest // 60:02}:{rest % 60:02}", "max_rss": f"{used.ru_maxrss / 1024:.2f}",
        "max_vms": "NA", "max_uss": "NA", "max_pss": "NA", "io_in": "NA", "io_out": "NA",
        "mean_load": f"{100 * cpu / max(seconds, 0.01):.2f}", "cpu_time": f"{cpu:.2f}",
    }  # fmt: skip
    return "\t".join(values) + "\n" + "\t".join(values.values()) + "\n"


def nearest_bin() -> Path:
    """Where this job's Python stands: in its environment, or in a copy of that on this node's own disk."""
    own = Path(sys.prefix)
    if not os.environ.get("MLLM_NODE_CACHE"):
        return own / "bin"
    sys.path.append(str(Path(__file__).resolve().parents[2]))
    from mllm.core.node_cache import near_environment

    return near_environment(own) / "bin"


def usage_path(record_path: Path, slurm_id: str) -> Path:
    """Where a job writes what it used: beside its record."""
    return record_path.with_name(f"{record_path.stem}.{slurm_id}.usage")


def write(path: Path, text: str) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    partial.write_text(text)
    partial.replace(path)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
