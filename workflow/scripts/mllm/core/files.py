"""Files that are whole or absent: written beside their place, then renamed."""

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

FULL = (errno.ENOSPC, errno.EDQUOT)  # no room left on the disk, or in one's quota


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a temporary neighbour of ``path`` to write to, and rename it when all went well.

    Works for files and folders. Whatever stood at ``path`` stays until the new content is whole.
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
        # Libraries tell of a full disk in words of their own (polars: "invalid thrift: transport error").
        free = shutil.disk_usage(path.parent).free
        if error.errno not in FULL if isinstance(error, OSError) else free > 2**16:
            raise
        raise Failure(f"the disk is full: cannot write {path} (free some space in {path.parent})") from error
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it; a link alone, not what it leads to. Nothing there is no error."""
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
        raise Failure(f"{path}: no such file; what makes it did not run, or did not end") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        fix = "delete it and rerun" if "results" in path.parts else "copy or download it again"
        raise Failure(f"{path}: not valid JSON ({error}). Fix: {fix}") from None


def once(folder: Path | None, what: str, of: list[Any], work_out: Callable[[], Any]) -> Any:
    """A value that is the same for many jobs, taken from the file that the first of them left, or worked out.

    Args:
        folder: where such files are; without one, the value is worked out each time.
        what: beginning of the file's name.
        of: all that the value depends on, as JSON has it.
        work_out: called by the first.
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
