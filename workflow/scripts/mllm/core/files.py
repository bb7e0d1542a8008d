"""Atomic files: each is written under a temporary name, then renamed, so that it is complete or absent."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mllm.core.errors import Failure

FULL = (errno.ENOSPC, errno.EDQUOT)  # the disk, or the user's quota, is full


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` to write to, and rename it to ``path`` if the block succeeds.

    Works for files and folders. The old content of ``path`` stays until the new content is complete.

    Raises:
        Failure: the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        yield partial
        if path.is_dir() and partial.is_dir():
            old = path.with_name(f".{path.name}.old-{os.getpid()}")
            path.rename(old)
            partial.rename(path)
            shutil.rmtree(old)
        else:
            partial.replace(path)
    except Exception as error:
        # Libraries report a full disk in other words (polars: "invalid thrift: transport error").
        free = shutil.disk_usage(path.parent).free
        if error.errno not in FULL if isinstance(error, OSError) else free > 2**16:
            raise
        raise Failure(f"{path}: cannot write, the disk is full. Fix: free space in {path.parent}") from error
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a file, a link (not its target) or a folder with its content; a missing path is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write canonical JSON: sorted keys, two spaces, a newline at the end."""
    with whole(path) as partial:
        partial.write_text(
            json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
        )


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Failure(f"{path}: no such file. Fix: rerun the job that makes it") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        fix = "delete it and rerun" if "results" in path.parts else "copy or download it again"
        raise Failure(f"{path}: not valid JSON ({error}). Fix: {fix}") from None


def once(folder: Path | None, what: str, of: list[Any], work_out: Callable[[], Any]) -> Any:
    """Return a value that many jobs share: the first job computes and writes it, the others read it.

    Args:
        folder: folder of such files; None: compute the value each time.
        what: beginning of the file's name.
        of: everything that the value depends on, as JSON values.
        work_out: computes the value.
    """
    if folder is None:
        return work_out()
    key = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:16]
    file = folder / f"{what}-{key}.json"
    if file.exists():
        with contextlib.suppress(Failure):  # damaged
            return read_json(file)
    write_json(file, found := work_out())
    return found
