"""Copy to a node's own disk what its jobs read repeatedly from the network: the environment and the weights.

Off unless MLLM_NODE_CACHE names a folder there. An error (disk full, no permission) costs the copy, not the job.
This module imports the standard library only, since ``jobstep`` uses it before the environment exists.
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
    """Return this node's copy of a model folder, made once; the folder itself if the cache is off or copying fails.

    The copy's key has the files' names, sizes and times: a rebuilt model is copied again.
    """
    files = sorted(f for f in folder.rglob("*") if f.is_file())
    facts = [f"{f.relative_to(folder)} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in files]
    return _copy(folder.resolve(), facts, shutil.copytree) or folder


def near_environment(prefix: Path) -> Path:
    """Return this node's copy of the environment in ``prefix``, made once; ``prefix`` itself if the cache is off."""
    ready = prefix / "pyvenv.cfg"
    packages = next(iter(sorted(prefix.glob("lib/python3*/site-packages"))), None)
    if packages is None or not ready.exists():
        return prefix
    facts = [f"{f} {f.stat().st_mtime_ns}" for f in (ready, packages)]
    return _copy(prefix.resolve(), facts, _copy_links) or prefix


def _copy_links(source: Path, target: Path) -> None:
    shutil.copytree(source, target, symlinks=True)


def _copy(source: Path, facts: list[str], copy: Callable[[Path, Path], object]) -> Path | None:
    """Return the copy's path; None if the cache is off or copying fails."""
    cache = os.environ.get(VARIABLE)
    if not cache:
        return None
    key = hashlib.sha256("\n".join([str(source), *facts]).encode()).hexdigest()[:16]
    target = Path(cache, f"mllm-{os.getuid()}", f"{source.name.lstrip('.')}-{key}")
    partial = target.with_name(f"{target.name}.partial")
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with target.with_name(f"{target.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # many jobs start on a node at once, and one of them copies
            if not target.exists():
                shutil.rmtree(partial, ignore_errors=True)
                try:
                    copy(source, partial)
                    partial.rename(target)
                finally:  # under the lock, so that no other job's copy is deleted
                    shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        print(
            f"{source}: not copied to {cache} ({error.strerror or error}); the job uses the original", file=sys.stderr
        )
        return None
    return target
