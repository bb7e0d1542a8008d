"""Score all candidates on validation, test and slices of test, each metric with a 95 % interval, raw and calibrated.

All are scored at once, on the same resamples of the texts, which are drawn once.
"""

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mllm.core import script, threads
from mllm.core.files import whole
from mllm.core.messages import progress


def main(arguments: argparse.Namespace) -> None:
    threads.fix_without_torch()
    from mllm.evaluation import score_files, scores
    from mllm.experiment import grid, read

    experiment = read.read(*arguments.experiment, override=arguments.override)
    candidates = grid.build(experiment).candidates.values()
    with whole(arguments.output) as folder:
        folder.mkdir()
        for task in dict.fromkeys(c.task for c in candidates):
            bench = scores.Bench(arguments.results / "data", experiment.task(task).model_dump(), experiment.seed)
            mine = [c for c in candidates if c.task == task]
            files = [arguments.results / f"predictions/{c.name}.parquet" for c in mine]
            with ThreadPoolExecutor(arguments.threads) as pool:
                found = pool.map(bench.score, files)
                for candidate, one in zip(progress(mine, f"scoring {task}"), found, strict=True):
                    score_files.Scores(**candidate.label(), **one.scores).write(folder / f"{candidate.name}.json")
                    bench.keep(one)
            bench.write(folder, [c.name for c in mine])


if __name__ == "__main__":
    parser = script.parser(__doc__)
    parser.add_argument("--experiment", type=Path, nargs="+", required=True, help="experiment file")
    parser.add_argument("--override", type=json.loads, default={}, help="values that replace the file's, as JSON")
    parser.add_argument(
        "--results", type=Path, required=True, help="the experiment's folder, with predictions/ and data/"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument(
        "--output", type=Path, required=True, help="folder to write: one JSON per candidate, and the resamples"
    )
    script.run(main, parser.parse_args())
