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
from typing import Any


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
    write(usage_path(record_path, os.environ["SLURM_JOB_ID"]), {
        "status": status,
        "seconds": round(time.time() - start, 2),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 2),
        "peak_mb": used.ru_maxrss // 1024,
        "node": os.environ.get("SLURMD_NODENAME", socket.gethostname()),
        "restarts": int(os.environ.get("SLURM_RESTART_COUNT", 0)),
    })  # fmt: skip
    return status if status >= 0 else 128 - status


def nearest_bin() -> Path:
    """Where this job's Python stands: in its environment, or in a copy of that on this node's own disk."""
    own = Path(sys.prefix)
    if not os.environ.get("MLLM_NODE_CACHE"):
        return own / "bin"
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    from mllm.staging import near_environment

    return near_environment(own) / "bin"


def usage_path(record_path: Path, slurm_id: str) -> Path:
    """Where a job writes what it used: beside its record."""
    return record_path.with_name(f"{record_path.stem}.{slurm_id}.usage")


def write(path: Path, value: dict[str, Any]) -> None:
    """Whole or not at all."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    partial.write_text(json.dumps(value, indent=2) + "\n")
    partial.replace(path)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
