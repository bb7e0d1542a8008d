"""Score one candidate on validation, test and slices of test, each metric with a 95 % interval."""

import argparse
import json
from pathlib import Path

from mllm import cli


def main(arguments: argparse.Namespace) -> None:
    import numpy as np
    import polars as pl

    from mllm import scoring, slices, tables
    from mllm.splits import label_column

    task = arguments.candidate["task"]
    labels = tables.task_facts(arguments.data, task)
    predictions = pl.read_parquet(arguments.predictions)
    scores, counts, apart = {}, {}, []
    for split in ("valid", "test"):
        reviews = pl.read_parquet(arguments.data / f"{split}.parquet").select(pl.exclude("review"))
        try:
            rows = scoring.align(predictions, reviews, split, label_column(task))
            logp = scoring.log_matrix(rows, len(labels["names"]))
        except cli.Failure as failure:
            raise cli.Failure(f"{arguments.predictions}: {failure}") from None
        counts[split] = {"reviews": rows.height, "texts": rows["group"].n_unique()}
        # Nothing is chosen by slices: they are for the report, and of the test reviews alone.
        parts = (
            slices.slices(
                rows.select("review_id").join(reviews, on="review_id", maintain_order="left"), labels["label"]
            )
            if split == "test"
            else {}
        )
        whole, *found = scoring.resample_parts(
            rows["truth"].to_numpy(), logp, rows["group"].to_numpy(),
            [np.ones(rows.height, dtype=bool), *slices.masks(parts)], labels["ordered"], arguments.seed,
        )  # fmt: skip
        scores[split] = scoring.intervals(whole)
        for (column, name), mask, values in zip(parts, parts.values(), found, strict=True):
            size = {"reviews": int(mask.sum()), "texts": rows["group"].filter(mask).n_unique()}
            apart.append({"column": column, "slice": name, **size, "scores": scoring.intervals(values)})
    result = {**arguments.candidate, "scores": scores, "counts": counts, "slices": apart}
    cli.write_json(arguments.output, result)


if __name__ == "__main__":
    parser = cli.parser(__doc__)
    parser.add_argument("--candidate", type=json.loads, required=True, help="candidate, kind, method, task, … as JSON")
    parser.add_argument("--predictions", type=Path, required=True, help="its predictions (parquet)")
    parser.add_argument("--data", type=Path, required=True, help="folder that split_reviews wrote")
    parser.add_argument("--seed", type=int, required=True, help="of the bootstrap")
    parser.add_argument("--output", type=Path, required=True, help="scores to write (JSON)")
    cli.run(main, parser.parse_args())
