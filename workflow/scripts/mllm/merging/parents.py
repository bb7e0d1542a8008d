"""What a merge notes of its parents."""

from pathlib import Path

from mllm.core.files import once
from mllm.models import checkpoint_files


def digest(folder: Path, near: Path, kept: Path | None) -> str:
    """SHA-256 of a parent's weights; read by the first of its merges alone, as long as its files stay as they are.

    Args:
        folder: of the parent.
        near: the copy of it that is read.
        kept: where jobs keep what others need again.
    """
    facts = [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in checkpoint_files.weight_files(folder)]
    return str(once(kept, "weights", [str(folder.resolve()), facts], lambda: checkpoint_files.digest(near)))
