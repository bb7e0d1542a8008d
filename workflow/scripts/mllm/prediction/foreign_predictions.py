"""Read prediction tables that were made elsewhere."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mllm.core.arrays import Array
from mllm.core.errors import Failure
from mllm.core.wording import listed

if TYPE_CHECKING:
    import polars as pl

    from mllm.experiment.schema import Candidates, Task


SUM_TOLERANCE = 1e-3


def read(path: Path, task: "Task", names: list[str], how: "Candidates") -> "pl.DataFrame":
    """Read a candidate's table into this project's form: review_id, label, group, logp_0 …, and its other columns.

    Args:
        path: parquet or CSV.
        task: the task whose labels the table holds.
        names: of the classes, in order.
        how: names the columns for reviews, labels, groups and numbers.

    Raises:
        Failure: the file is no table, a column is missing, a label is no class, a row is no distribution, or a review
            is duplicated.
    """
    import numpy as np
    import polars as pl

    columns = how.columns or [f"logp_{k}" for k in range(len(names))]
    frame = _table(path, names, columns, how)
    numbers = frame.select(pl.col(columns).cast(pl.Float64, strict=False)).to_numpy()
    p = _probabilities(numbers, how.values)
    off = np.flatnonzero(~((np.abs(p.sum(1) - 1) < SUM_TOLERANCE) & (p >= 0).all(1)))
    if len(off):
        row = int(off[0])
        raise Failure(
            f"{path}: review {frame[how.review][row]}: its {len(names)} numbers as {how.values.replace('_', '-')}"
            f" {_not_probabilities(p[row])} ({len(off):,} of {len(p):,} reviews){_hint(numbers, how.values)}"
        )
    with np.errstate(divide="ignore"):
        logp = np.log(p / p.sum(1, keepdims=True))
    used = {how.review, how.label, how.group, *columns, "review_id", "label", "group"}
    rest = [c for c in frame.columns if c not in used and not c.startswith(("logp_", "label_"))]
    return frame.select(
        _labels(frame[how.label], task, names, path, how).alias("label"),
        pl.col(how.review).alias("review_id"),
        (pl.col(how.group) if how.group else pl.col(how.review)).rank("dense").alias("group"),
        *(pl.Series(f"logp_{k}", logp[:, k], dtype=pl.Float32) for k in range(len(names))),
        *rest,
    )


def _table(path: Path, names: list[str], columns: list[str], how: "Candidates") -> "pl.DataFrame":
    """Return a candidate's table with a column of reviews, each of which occurs once; raises as :func:`read`."""
    import polars as pl

    try:
        frame = (
            pl.read_parquet(path, glob=False)
            if path.suffix.lower() == ".parquet"
            else pl.read_csv(path, infer_schema_length=None, glob=False)
        )
    except (pl.exceptions.PolarsError, OSError) as error:
        raise Failure(f"{path}: cannot be read as a table: {str(error).splitlines()[0]}") from None
    frame = _plainly(frame, {how.review, how.label, how.group})
    missing = [c for c in (how.label, *columns, *([how.group] if how.group else [])) if c not in frame.columns]
    if missing:
        raise Failure(f"{path}: no column {listed(missing)}; found {listed(frame.columns)}")
    if len(columns) != len(names):
        raise Failure(
            f"{path}: {len(columns)} columns for {len(names)} classes ({listed(names)}). Fix: name one for each class"
        )
    if not frame.height:
        raise Failure(f"{path}: has no rows")
    if how.review not in frame.columns:
        frame = frame.with_row_index(how.review)
    for column in (how.review, *([how.group] if how.group else [])):
        if frame[column].null_count():
            raise Failure(f"{path}: {column} is empty in {frame[column].null_count():,} rows")
    twice = frame.filter(pl.col(how.review).is_duplicated())
    if twice.height:
        times = frame[how.review].eq(twice[how.review][0]).sum()
        raise Failure(f"{path}: review {twice[how.review][0]} occurs {times} times")
    return frame


def _plainly(frame: "pl.DataFrame", used: set[str | None]) -> "pl.DataFrame":
    """Convert numbers to 64 bits and decimals to numbers; drop columns of bytes or lists that are not in ``used``."""
    import polars as pl

    def plain(kind: "pl.DataType") -> Any:
        if kind.is_decimal() or kind == pl.Float32:
            return pl.Float64
        return pl.Int64 if kind.is_integer() and kind not in (pl.UInt64, pl.Int128) else kind

    strange = [c for c in frame.columns if frame[c].dtype.is_nested() or frame[c].dtype in (pl.Binary, pl.Object)]
    kept = [c for c in frame.columns if c in used or c not in strange]
    return frame.select(pl.col(c).cast(plain(frame[c].dtype)) for c in kept)


def _probabilities(numbers: Array, values: str) -> Array:
    """Convert numbers to probabilities, (reviews, classes). The caller checks their sums; those of logits are 1."""
    import numpy as np

    if values == "logits":
        powers = np.exp(numbers - numbers.max(1, keepdims=True))
        return np.asarray(powers / powers.sum(1, keepdims=True))
    return np.exp(numbers) if values == "log_probabilities" else numbers


def _not_probabilities(row: Array) -> str:
    return "are not all above 0" if (row < 0).any() else f"sum to {row.sum():.6g}, expected 1"


def _hint(numbers: Array, values: str) -> str:
    """Say what numbers may be that are no distribution."""
    import numpy as np

    off = np.abs(numbers.sum(1) - 1)
    if (numbers >= 0).all() and (off < SUM_TOLERANCE).all():
        return ". Fix: set values: probabilities, since they look like probabilities"
    if (numbers >= 0).all() and (off <= 0.005 * numbers.shape[1] + SUM_TOLERANCE).all():
        return ". Fix: write more digits, since they look like rounded probabilities"
    if np.isfinite(numbers).all() and (np.abs(np.exp(np.minimum(numbers, 1)).sum(1) - 1) < SUM_TOLERANCE).all():
        return ". Fix: set values: log_probabilities, since they look like log-probabilities"
    return ". Fix: set values: logits, if they are logits" if np.isfinite(numbers).all() else ""


def _labels(column: "pl.Series", task: "Task", names: list[str], path: Path, how: "Candidates") -> "pl.Series":
    """Return class indices for a column of the task's values, class names, or (if it has no values) numbers from 0."""
    import polars as pl

    from mllm.data.labels import in_kind

    column = column.cast(pl.Int64) if column.dtype == pl.Boolean else column
    numbers = column.dtype.is_numeric()
    known: dict[Any, int] = {} if numbers else {name: i for i, name in enumerate(names)}
    if task.classes:
        known |= {v: i for i, values in enumerate(task.classes.values()) for v in in_kind(column.dtype, values)}
    elif numbers:
        low, high = float(column.min() or 0), float(column.max() or 0)  # type: ignore[arg-type]
        if task.label == "rating" and low > 0 and high < len(names):
            raise Failure(
                f"{path}: {how.label} is from {low:g} to {high:g}: ratings (1 to {len(names)}) or class numbers (0 to "
                f"{len(names) - 1}). Fix: write ratings as text"
            )
        shift = int(task.label == "rating" and low > 0)
        known = {float(i + shift): i for i in range(len(names))}
    plain = column.cast(pl.Float64 if numbers else pl.String)
    found = plain.replace_strict(known, default=None, return_dtype=pl.Int64)
    if found.null_count():
        strange = column.filter(found.is_null())
        raise Failure(
            f"{path}: {how.label} is {strange[0]!r} in {found.null_count():,} rows; expected one of {listed(list(map(_plain, known)))}"
        )
    return found


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def split_of(frames: dict[str, "pl.DataFrame"], files: dict[str, Path]) -> "pl.DataFrame | None":
    """Return review_id and split if the tables have a column ``split``; None if no table has.

    Raises:
        Failure: only some tables have it, or they differ; values other than valid and test; a text is in both.
    """
    import polars as pl

    having = [name for name, frame in frames.items() if "split" in frame.columns]
    if not having:
        return None
    first = having[0]
    for name, frame in frames.items():
        if name not in having or not frame["split"].equals(frames[first]["split"]):
            raise Failure(
                f"{files[name]}: the column split differs from {files[first]}. Fix: give all tables the same, or none"
            )
    split = frames[first]["split"]
    values = set(split.unique().to_list())
    if values != {"valid", "test"}:
        raise Failure(f"{files[first]}: split is {listed(sorted(map(str, values)))}; expected valid and test")
    texts = frames[first].group_by("group").agg(pl.col("split").n_unique(), pl.col("review_id").first())
    both = texts.filter(pl.col("split") > 1)
    if both.height:
        raise Failure(
            f"{files[first]}: {both.height:,} texts are in both validation and test, the first: review"
            f" {both['review_id'].sort()[0]}; blends and selection would see test answers. Fix: put each text in one split"
        )
    return frames[first].select("review_id", "split")


def check_alike(frame: "pl.DataFrame", path: Path, first: "pl.DataFrame", first_path: Path) -> None:
    """Refuse a table whose reviews or labels differ from the first one's.

    Raises:
        Failure: the tables differ; it names the first review that does.
    """
    import polars as pl

    if frame["review_id"].dtype != first["review_id"].dtype:
        raise Failure(
            f"{path}: its reviews are identified by {frame['review_id'].dtype}, in {first_path} by {first['review_id'].dtype}"
        )
    for one, other, a, b in ((first, frame, first_path, path), (frame, first, path, first_path)):
        absent = one.filter(~pl.col("review_id").is_in(other["review_id"].implode()))
        if absent.height:
            raise Failure(
                f"{b}: {absent.height:,} reviews of {a} are missing, the first: {absent['review_id'][0]}; "
                "all candidates must have the same reviews"
            )
    both = first.select("review_id", theirs="label", text="group").join(frame, on="review_id")
    wrong = both.filter(pl.col("theirs") != pl.col("label"))
    if wrong.height:
        raise Failure(
            f"{path}: review {wrong['review_id'][0]} has label {wrong['label'][0]}, in {first_path} it is "
            f"{wrong['theirs'][0]} ({wrong.height:,} of {both.height:,} reviews disagree)"
        )
    if (both["text"] != both["group"]).any():
        raise Failure(f"{path}: reviews are grouped into other texts than in {first_path}")
