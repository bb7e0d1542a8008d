"""Predictions that were made elsewhere: which tables there are, and what they say in this project's form.

Listing them must stay cheap (no polars): Snakemake does so in every job.
"""

from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mllm.cli import Failure
from mllm.experiment_files import ExperimentError
from mllm.phrases import listed

if TYPE_CHECKING:
    import polars as pl

    from mllm.config import Candidates

ENDINGS = (".parquet", ".csv")
SUM_TOLERANCE = 1e-3


def tables(candidates: "Candidates") -> dict[str, Path]:
    """Candidate -> its file, sorted by name.

    Raises:
        ExperimentError: no folder, no tables, two of one name.
    """
    folder = Path(candidates.from_)
    files = sorted(f for f in folder.glob("*") if f.suffix in ENDINGS) if folder.is_dir() else []
    if not files:
        what = f"no tables ({' or '.join(ENDINGS)}) in" if folder.is_dir() else "no folder"
        raise ExperimentError("experiment", [f"candidates.from: {what} {str(folder)!r}"])
    twice = [f.stem for f in files if sum(g.stem == f.stem for g in files) > 1]
    if twice:
        raise ExperimentError(
            "experiment", [f"candidates.from: {twice[0]!r} stands in {str(folder)!r} as parquet and CSV"]
        )
    return {f.stem: f for f in files}


def kinds(candidates: "Candidates", names: list[str]) -> dict[str, str]:
    """Candidate -> its kind.

    Raises:
        ExperimentError: a pattern that matches no table, a table that no pattern or patterns of two kinds match.
    """
    problems: list[str] = []
    found: dict[str, str] = {}
    for kind, patterns in candidates.kinds.items():
        for pattern in patterns:
            mine = [n for n in names if fnmatchcase(n, pattern)]
            if not mine:
                problems.append(f"candidates.kinds.{kind}: {pattern!r} matches none of {listed(names)}")
            for name in mine:
                if found.setdefault(name, kind) != kind:
                    problems.append(
                        f"candidates.kinds.{kind}: {pattern!r} matches {name!r}, which is also {found[name]}"
                    )
    rest = [n for n in names if n not in found]
    if rest:
        problems.append(f"candidates.kinds: no kind for {listed(rest)}; name each table, or move it away")
    if problems:
        raise ExperimentError("experiment", problems)
    return found


def parameters(candidates: "Candidates", name: str) -> int | None:
    """A candidate's number of parameters by the first name or pattern that matches; none where it is not said."""
    return next((n for pattern, n in candidates.parameters.items() if fnmatchcase(name, pattern)), None)


def read(path: Path, names: list[str], how: "Candidates") -> "pl.DataFrame":
    """One candidate's table in this project's form: review_id, label, logp_0 …, and the table's other columns.

    Args:
        path: parquet or CSV.
        names: of the classes, in order.
        how: which columns hold what.

    Raises:
        Failure: a column is missing, a label is no class, numbers are no distribution, a review stands twice.
    """
    import numpy as np
    import polars as pl

    frame = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path, infer_schema_length=None)
    columns = how.columns or [f"logp_{k}" for k in range(len(names))]
    missing = [c for c in (how.label, *columns, *([how.group] if how.group else [])) if c not in frame.columns]
    if missing:
        raise Failure(f"{path}: no column {listed(missing)}; found {listed(frame.columns)}")
    if len(columns) != len(names):
        raise Failure(
            f"{path}: {len(columns)} columns for {len(names)} classes ({listed(names)}); one for each is needed"
        )
    if how.review not in frame.columns:
        frame = frame.with_row_index(how.review)
    twice = frame.filter(pl.col(how.review).is_duplicated())
    if twice.height:
        raise Failure(
            f"{path}: review {twice[how.review][0]} stands {twice[how.review].value_counts()['count'][0]} times"
        )
    numbers = frame.select(pl.col(columns).cast(pl.Float64, strict=False)).to_numpy()
    p = np.exp(numbers) if how.values == "log_probabilities" else numbers
    off = np.flatnonzero(~((np.abs(p.sum(1) - 1) < SUM_TOLERANCE) & (p >= 0).all(1)))
    if len(off):
        row = int(off[0])
        raise Failure(
            f"{path}: review {frame[how.review][row]}: its {len(names)} numbers as {how.values.replace('_', '-')} sum to "
            f"{p[row].sum():.6g}, expected 1 ({len(off):,} of {len(p):,} reviews)"
        )
    with np.errstate(divide="ignore"):
        logp = np.log(p / p.sum(1, keepdims=True))
    used = {how.review, how.label, how.group, *columns}
    rest = [c for c in frame.columns if c not in used and not c.startswith(("logp_", "label_"))]
    return frame.select(
        _labels(frame[how.label], names, path, how).alias("label"),
        pl.col(how.review).alias("review_id"),
        (pl.col(how.group) if how.group else pl.col(how.review)).rank("dense").alias("group"),
        *(pl.Series(f"logp_{k}", logp[:, k], dtype=pl.Float32) for k in range(len(names))),
        *rest,
    )


def _labels(column: "pl.Series", names: list[str], path: Path, how: "Candidates") -> "pl.Series":
    """Class indices of a column of indices or of names."""
    import polars as pl

    numbers = column.dtype.is_numeric()
    known: dict[Any, int] = {i if numbers else name: i for i, name in enumerate(names)}
    found = column.cast(pl.Int64, strict=False).replace_strict(known, default=None) if numbers else None
    found = column.cast(pl.String).replace_strict(known, default=None) if found is None else found
    if found.null_count():
        strange = column.filter(found.is_null())
        expected = f"0 to {len(names) - 1}" if numbers else listed(names)
        raise Failure(f"{path}: {how.label} is {strange[0]!r} in {found.null_count():,} rows; expected {expected}")
    return found.cast(pl.Int64)


def check_alike(frame: "pl.DataFrame", path: Path, first: "pl.DataFrame", first_path: Path) -> None:
    """Refuse a table of other reviews than the first one's, or of other labels.

    Raises:
        Failure: what differs, with the first review where it does.
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
                "all candidates must be of the same reviews"
            )
    both = first.select("review_id", theirs="label").join(frame.select("review_id", "label"), on="review_id")
    wrong = both.filter(pl.col("theirs") != pl.col("label"))
    if wrong.height:
        raise Failure(
            f"{path}: review {wrong['review_id'][0]} has label {wrong['label'][0]}, in {first_path} it is "
            f"{wrong['theirs'][0]} ({wrong.height:,} of {both.height:,} reviews disagree)"
        )
