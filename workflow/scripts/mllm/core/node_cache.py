"""Copies on a node's own disk of what its jobs read again and again from the network: the environment, the weights.

Off unless MLLM_NODE_CACHE names a folder there. Whatever goes wrong (no room, no right) costs the copy, not the job.
The standard library alone, since ``jobstep`` uses it before the environment is there.
"""

import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

VARIABLE = "MLLM_NODE_CACHE"


def near(folder: Path) -> Path:
    """A copy of a model folder on this node, made once; the folder itself where that is not wanted or fails.

    The copy belongs to the files' names, sizes and times: a model made again is copied again.
    """
    files = sorted(f for f in folder.rglob("*") if f.is_file())
    facts = [f"{f.relative_to(folder)} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in files]
    return _copy(folder.resolve(), facts, shutil.copytree) or folder


def near_environment(prefix: Path) -> Path:
    """A copy of the environment in ``prefix`` on this node, made once; ``prefix`` itself where that is not wanted."""
    ready = prefix / "pyvenv.cfg"
    packages = next(iter(sorted(prefix.glob("lib/python3*/site-packages"))), None)
    if packages is None or not ready.exists():
        return prefix
    facts = [f"{f} {f.stat().st_mtime_ns}" for f in (ready, packages)]
    return _copy(prefix.resolve(), facts, _copy_links) or prefix


def _copy_links(source: Path, target: Path) -> None:
    shutil.copytree(source, target, symlinks=True)


def _copy(source: Path, facts: list[str], copy: Callable[[Path, Path], object]) -> Path | None:
    """The copy's path; None without a cache, or where it could not be made."""
    cache = os.environ.get(VARIABLE)
    if not cache:
        return None
    key = hashlib.sha256("\n".join([str(source), *facts]).encode()).hexdigest()[:16]
    target = Path(cache, f"mllm-{os.getuid()}", f"{source.name.lstrip('.')}-{key}")
    partial = target.with_name(f"{target.name}.partial")
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with target.with_name(f"{target.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # many jobs start on a node at once; one of them copies
            if not target.exists():
                shutil.rmtree(partial, ignore_errors=True)
                try:
                    copy(source, partial)
                    partial.rename(target)
                finally:  # under the lock, so that nobody else's copy goes
                    shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        print(
            f"no copy of {source} in {cache} ({error.strerror or error}): going on with the original", file=sys.stderr
        )
        return None
    return target
