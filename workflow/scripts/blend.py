"""Blend members' predictions by votes, or by methods that are fitted on validation."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mllm.core import script, threads

KEPT = ("n_parameters", "weights_bytes", "load_seconds")
RUN = ("flops_per_review", "predict_seconds")


def main(arguments: argparse.Namespace) -> None:
    threads.fix_without_torch()
    import numpy as np
    import polars as pl

    from mllm.prediction import blending, prediction_tables, routing
    from mllm.prediction import costs as records

    reviews = prediction_tables.Reviews(arguments.data, arguments.task)
    members = [path.stem for path in arguments.predictions]
    logp = [reviews.read(path) for path in arguments.predictions]
    stacked = np.stack([np.concatenate([of[s] for s in prediction_tables.SPLITS]) for of in logp])
    columns = list({column for parts in arguments.where or [] for column in parts})
    rows = pl.concat(
        [
            reviews.rows[s].select("review_id", "group", *columns, split=pl.lit(s), label=reviews.column)
            for s in prediction_tables.SPLITS
        ]
    )
    if arguments.method == "router":
        mine = routing.slices(rows, dict(zip(members, arguments.where, strict=True)))
        routed = routing.route(members, stacked, mine)
        blended, facts, share = routed.logp, routed.facts, routed.share
    else:
        blend = blending.blend(
            arguments.method, members, stacked, rows["label"].to_numpy(), rows["group"].to_numpy(),
            (rows["split"] == "valid").to_numpy(), arguments.seed,
        )  # fmt: skip
        blended, facts, share = blend.logp, blend.facts, np.ones(len(members))
    prediction_tables.write_predictions(arguments.output, rows, blended)
    costs = [records.Cost.read(p) for p in arguments.costs]
    # All members run, one after the other (for a router, the members whose slice holds a review): costs add up, memory
    # is the largest member's. A cost that is unknown for one member is unknown for the blend.
    cost: dict[str, Any] = {name: _over(sum, name, costs) for name in KEPT}
    cost |= {name: _over(lambda values: float(share @ values), name, costs) for name in RUN}
    cost["flops_per_review"] = None if cost["flops_per_review"] is None else round(cost["flops_per_review"])
    cost |= {name: _over(max, name, costs) for name in ("peak_memory_bytes", "peak_gpu_memory_bytes")}
    seconds = cost["predict_seconds"]
    cost |= {"device": costs[0].device, "reviews": rows.height, "train_seconds": 0.0, "blend": facts}
    cost["reviews_per_second"] = round(rows.height / seconds, 1) if seconds else None
    records.Cost(**cost).write(arguments.cost)


def _over(combine: Callable[[list[float]], float], name: str, costs: list[Any]) -> float | None:
    values = [getattr(c, name) for c in costs]
    return None if None in values else combine([v for v in values if v is not None])


if __name__ == "__main__":
    parser = script.parser(__doc__)
    parser.add_argument(
        "--method", required=True, help="soft_vote, log_vote, majority_vote, weighted_vote, stacking, greedy or router"
    )
    parser.add_argument(
        "--where", type=json.loads, help="router: the slice of each member, in the members' order, as JSON"
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the reviews' labels and texts' numbers")
    parser.add_argument("--task", required=True, help="name of the task")
    parser.add_argument("--seed", type=int, required=True, help="seed of validation's folds")
    parser.add_argument("--predictions", type=Path, nargs="+", required=True, help="members' predictions")
    parser.add_argument("--costs", type=Path, nargs="+", required=True, help="members' costs, in the same order")
    parser.add_argument("--output", type=Path, required=True, help="predictions to write (parquet)")
    parser.add_argument("--cost", type=Path, required=True, help="cost to write (JSON)")
    script.run(main, parser.parse_args())
