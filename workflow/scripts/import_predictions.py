"""Import prediction tables made elsewhere: all have the same reviews, which are split once into validation and test."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from mllm.core import script
from mllm.core.errors import Failure
from mllm.core.files import whole, write_json
from mllm.core.messages import progress

if TYPE_CHECKING:
    import polars as pl

    from mllm.experiment.schema import Experiment


def main(arguments: argparse.Namespace) -> None:
    import numpy as np
    import polars as pl

    from mllm.data import labelled
    from mllm.data.labels import label_map, neutral_names
    from mllm.experiment import foreign_tables, read
    from mllm.prediction import costs, foreign_predictions, prediction_tables

    experiment = read.read(*arguments.experiment, override=arguments.override)
    how, task = experiment.candidates, experiment.tasks[0]
    assert how is not None
    names = [str(n) for n in label_map(pl.DataFrame(), task.model_dump())]
    files = foreign_tables.tables(how)
    frames: dict[str, pl.DataFrame] = {}
    for name, path in progress(files.items(), "reading", total=len(files)):
        frame = foreign_predictions.read(path, task, names, how).sort("review_id")
        first = next(iter(frames), name)
        foreign_predictions.check_alike(frame, path, frames.get(first, frame), files[first])
        # The reviews' other columns come from the first table.
        needed = ["review_id", "label", "group", "split", *prediction_tables.logp_columns(frame)]
        frames[name] = frame if name == first else frame.select(c for c in needed if c in frame.columns)
    reviews = cut(frames[first], foreign_predictions.split_of(frames, files), experiment)
    parts = {split: reviews.filter(pl.col("split") == split) for split in ("valid", "test")}
    for split, part in parts.items():
        if not part.height:
            raise Failure(f"{files[first]}: too few reviews (found {reviews.height}): none would be in split {split!r}")
    splits = reviews.select("review_id", "split")
    for name, frame in frames.items():
        rows = frame.drop("split", strict=False).join(splits, on="review_id", maintain_order="left")
        logp = rows.select(prediction_tables.logp_columns(rows)).to_numpy()
        prediction_tables.write_predictions(arguments.results / f"predictions/{name}.parquet", rows, logp)
        cost = costs.Cost(n_parameters=foreign_tables.parameters(how, name), reviews=rows.height)
        cost.write(arguments.results / f"predictions/{name}.cost.json")
    digests = {}
    for split, part in parts.items():
        table = part.drop("split", "label", *prediction_tables.logp_columns(part))
        with whole(arguments.results / f"data/{split}.parquet") as partial:
            table.write_parquet(partial)
        digests[split] = labelled.digest(table)
    facts = {
        "names": neutral_names(task.model_dump(), names), "label": task.label or task.column, "imported": True,
        "unlabelled": dict.fromkeys(parts, 0),
        "counts": {s: np.bincount(p["label"].to_numpy(), minlength=len(names)).tolist() for s, p in parts.items()},
    }  # fmt: skip
    data, heights = arguments.results / "data", {split: part.height for split, part in parts.items()}
    labelled.write_task(data, task.name, facts, reviews.select("review_id", "label"))
    write_json(
        data / "split.json", {"mode": "random", "test_rows": heights["test"], "rows": heights, "sha256": digests}
    )


def cut(reviews: "pl.DataFrame", given: "pl.DataFrame | None", experiment: "Experiment") -> "pl.DataFrame":
    """Add the column ``split``: as the tables say, else by the experiment's share, with all reviews of a group in one split.

    Args:
        reviews: of the first table.
        given: review_id and split, where some table has them.
        experiment: its seed and its share of validation.
    """
    import numpy as np
    import polars as pl

    if given is not None:
        return reviews.drop("split").join(given, on="review_id", maintain_order="left")
    groups = reviews["group"].unique().sort().to_numpy()
    chosen = np.random.default_rng(experiment.seed).permutation(groups)
    held_out = pl.Series(chosen[: round(experiment.split.valid * len(groups))])
    valid = pl.col("group").is_in(held_out.implode())
    return reviews.with_columns(split=pl.when(valid).then(pl.lit("valid")).otherwise(pl.lit("test")))


if __name__ == "__main__":
    parser = script.parser(__doc__)
    parser.add_argument("--experiment", type=Path, nargs="+", required=True, help="experiment file")
    parser.add_argument("--override", type=json.loads, default={}, help="values that replace the file's, as JSON")
    parser.add_argument("--results", type=Path, required=True, help="the experiment's folder: predictions/ and data/")
    script.run(main, parser.parse_args())
