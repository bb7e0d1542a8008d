"""Identify a merge's parents by the digests of their weights."""

from pathlib import Path

from mllm.core.files import once
from mllm.models import checkpoint_files


def digest(folder: Path, near: Path, kept: Path | None) -> str:
    """Return the SHA-256 of a parent's weights. Only its first merge reads them, while its files do not change.

    Args:
        folder: the parent's folder.
        near: the copy of it to read.
        kept: folder where jobs share their results; None: compute it here.
    """
    facts = [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in checkpoint_files.weight_files(folder)]
    return str(once(kept, "weights", [str(folder.resolve()), facts], lambda: checkpoint_files.digest(near)))
