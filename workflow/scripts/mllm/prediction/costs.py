"""What predictions cost: one record beside each candidate's predictions."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mllm.core.errors import Failure
from mllm.core.files import read_json, write_json

VERSION = 1  # of the record; one more for each field that changes its name, unit or meaning


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Seconds, bytes and operations; None where it is not known, as for predictions made elsewhere."""

    reviews: int
    """Validation and test reviews that were predicted."""
    n_parameters: int | None
    weights_bytes: int | None = None
    flops_per_review: int | None = None
    """Floating-point operations of a pass over a review of mean length."""
    train_seconds: float | None = None
    load_seconds: float | None = None
    predict_seconds: float | None = None
    reviews_per_second: float | None = None
    peak_memory_bytes: int | None = None
    peak_gpu_memory_bytes: int | None = None
    device: str | None = None
    gpus: int | None = None
    dtype: str | None = None
    start_seconds: float | None = None
    """From the start of the process to the first review."""
    tokenise_seconds: float | None = None
    write_seconds: float | None = None
    cut_reviews: int | None = None
    mean_tokens: float | None = None
    tokens_per_second: float | None = None
    device_peak_flops: int | None = None
    share_of_peak: float | None = None
    """Operations per second, over those of the device."""
    blend: dict[str, Any] | None = None
    """What a blend learnt on validation."""
    cross_validation: dict[str, Any] | None = None
    """What a baseline chose on train."""

    def write(self, path: Path) -> None:
        """Write the known values as JSON, and the record's version."""
        write_json(path, {"version": VERSION, **{k: v for k, v in asdict(self).items() if v is not None}})


def read(path: Path) -> Cost:
    """Read a candidate's cost.

    Raises:
        Failure: the file is missing, damaged, or of another version of the project.
    """
    found = read_json(path)
    version = found.get("version") if isinstance(found, dict) else None
    if version != VERSION:
        raise Failure(f"{path}: record of another version (found {version}, expected {VERSION}). {_fix(path)}")
    values = {k: v for k, v in found.items() if k != "version"}
    names = {f.name for f in fields(Cost)}
    wrong = sorted(values.keys() - names) + sorted({"reviews"} - values.keys())
    if wrong:
        raise Failure(f"{path}: damaged record (found {', '.join(sorted(values))}; wrong: {wrong[0]}). {_fix(path)}")
    return Cost(**{"n_parameters": None, **values})


def _fix(path: Path) -> str:
    return f"Fix: delete {path} and rerun the same command, which predicts again"
