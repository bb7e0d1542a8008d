"""Blend members' predictions: soft vote, the mean of their probabilities."""

import argparse
from pathlib import Path

from mllm import cli

SUMMED = ("n_parameters", "weights_bytes", "load_seconds", "predict_seconds")


def main(arguments: argparse.Namespace) -> None:
    import numpy as np
    import polars as pl

    from mllm import tables

    frames = [pl.read_parquet(p) for p in arguments.predictions]
    first, columns = frames[0], tables.logp_columns(frames[0])
    for path, frame in zip(arguments.predictions, frames, strict=True):
        if not frame.select("review_id", "split", "label").equals(first.select("review_id", "split", "label")):
            raise cli.Failure(f"{path}: other reviews than in {arguments.predictions[0]}; predict both again")
    logp = np.stack([f.select(columns).to_numpy().astype(float) for f in frames])
    tables.write_predictions(arguments.output, first, np.logaddexp.reduce(logp, axis=0) - np.log(len(frames)))
    costs = [cli.read_json(p) for p in arguments.costs]
    cost = {name: sum(c[name] or 0 for c in costs) for name in SUMMED}
    # All members must be run, one after the other; memory is that of the largest.
    cost |= {name: max(c[name] for c in costs) for name in ("peak_memory_bytes", "peak_gpu_memory_bytes")}
    cost |= {"device": costs[0]["device"], "reviews": first.height}
    cost["reviews_per_second"] = round(first.height / cost["predict_seconds"], 1)
    cli.write_json(arguments.cost, cost)


if __name__ == "__main__":
    parser = cli.parser(__doc__)
    parser.add_argument("--predictions", type=Path, nargs="+", required=True, help="members' predictions")
    parser.add_argument("--costs", type=Path, nargs="+", required=True, help="members' costs, in the same order")
    parser.add_argument("--output", type=Path, required=True, help="predictions to write (parquet)")
    parser.add_argument("--cost", type=Path, required=True, help="cost to write (JSON)")
    cli.run(main, parser.parse_args())
