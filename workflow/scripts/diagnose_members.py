"""Measure from weights alone how the members of a task's merges differ: norms, angles and signs of task vectors."""

import argparse
import json
from pathlib import Path

from mllm.core import compute, node_cache, script, threads
from mllm.core.files import whole
from mllm.core.messages import log


def main(arguments: argparse.Namespace) -> None:
    script.offline()
    compute.keep_freed_memory()
    threads.fix(1)
    import polars as pl

    from mllm.merging import diagnosis

    found = []
    for task, models in arguments.tasks.items():
        base, members = models["base"], models["members"]
        folders = {name: node_cache.near(arguments.models / name) for name in (base, *members)}
        layers = diagnosis.by_layer(folders, base, task, models.get("heads", True))
        for layer, sums in layers.items():
            found += [(task, layer, *row) for row in diagnosis.rows(sums, members)]
        log.info("%s: %s members, %s layers and other parts", task, len(members), len(layers) - 1)
    types = {column: pl.Float64 if column in ("density", "value") else pl.String for column in diagnosis.COLUMNS}
    table = pl.DataFrame(found, schema=types, orient="row")
    with whole(arguments.output) as partial:
        table.write_csv(partial)


if __name__ == "__main__":
    parser = script.parser(__doc__)
    parser.add_argument("--models", type=Path, required=True, help="folder with the model folders <base> and <member>")
    parser.add_argument(
        "--tasks",
        type=json.loads,
        required=True,
        help='{"<task>": {"base": "<name>", "members": ["<name>", …]}, …}; "heads": false leaves heads out',
    )
    parser.add_argument("--output", type=Path, required=True, help="measures to write (CSV)")
    script.run(main, parser.parse_args())
