"""Time all steps from prediction tables to the verdict; print each step's seconds, CPU seconds and peak memory.

The tables are generated, with ten classes, and imported as predictions made elsewhere. The steps are import, scores,
leaderboard and comparisons; scores are all metrics, raw and calibrated, with 2,000 resamples on validation, test and
all rows. Each step is a separate process. `make bench` runs it. benchmarks/README.md has the figures with their
machine.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STEPS = ("import_predictions", "score", "leaderboard", "compare")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candidates", type=int, nargs="+", default=[10, 300])
    parser.add_argument("--reviews", type=int, nargs="+", default=[10_753, 53_766])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--make", type=Path, help="only make the tables, in this folder")
    arguments = parser.parse_args()
    if arguments.make:
        make_tables(arguments.make, arguments.candidates[0], arguments.reviews[0])
        return
    print(f"{'candidates × reviews':<22}" + "".join(f"{step:>34}" for step in STEPS) + f"{'all':>24}")
    for count, reviews in zip(arguments.candidates, arguments.reviews, strict=True):
        with tempfile.TemporaryDirectory() as folder:
            tables = Path(folder, "tables")
            # In a separate process, since a child's peak memory starts at its parent's size.
            size = ["--candidates", str(count), "--reviews", str(reviews)]
            subprocess.run([sys.executable, __file__, "--make", str(tables), *size], check=True)
            experiment = Path(folder, "experiment.yaml")
            experiment.write_text(json.dumps(experiment_on(tables)))
            found = []
            for step in STEPS:
                command = [sys.executable, str(ROOT / f"workflow/scripts/{step}.py"), "--experiment", str(experiment),
                           "--results", f"{folder}/results"]  # fmt: skip
                if step == "score":
                    command += ["--threads", str(arguments.threads), "--output", f"{folder}/results/scores"]
                found.append(measure(command))
        cells = "".join(f"{f'{s:.1f} s ({cpu:.1f} CPU), {peak:,.0f} MB':>34}" for s, cpu, peak in found)
        total, cpu = (sum(one[i] for one in found) for i in (0, 1))
        print(f"{f'{count} × {reviews:,}':<22}{cells}{f'{total:.1f} s ({cpu:.1f} CPU)':>24}", flush=True)


def experiment_on(tables: Path) -> dict[str, object]:
    return {
        "name": "bench", "data": {"source": "predictions"}, "split": {"mode": "random", "valid": 0.2},
        "tasks": [{"name": "rating", "label": "rating"}],
        "candidates": {"from": str(tables), "kinds": {"expert": ["e*"], "merge": ["m*"], "reference": ["r*"]}},
    }  # fmt: skip


def make_tables(folder: Path, count: int, reviews: int) -> None:
    """Write tables of candidates with different skills and the same hard reviews; classes have the ratings' shares."""
    import numpy as np
    import polars as pl

    rng = np.random.default_rng(0)
    truth = rng.choice(10, reviews, p=np.array([7299, 2334, 2205, 1659, 2710, 2119, 3091, 6156, 9177, 17016]) / 53766)
    shared = rng.normal(size=(reviews, 10))
    folder.mkdir()
    for number in range(count):
        kind = "e" if number < 5 else "r" if number == 5 else f"m{number % 12}"
        logits = 0.8 * shared + 0.6 * rng.normal(size=(reviews, 10)) + rng.uniform(0.8, 1.2) * np.eye(10)[truth]
        logp = logits - np.logaddexp.reduce(logits, axis=1)[:, None]
        columns = {f"logp_{k}": logp[:, k].astype(np.float32) for k in range(10)}
        pl.DataFrame({"review_id": range(reviews), "label": truth, **columns}).write_parquet(
            folder / f"{kind}-{number}.parquet"
        )


def measure(command: list[str]) -> tuple[float, float, float]:
    """Return wall-clock seconds, CPU seconds and peak memory in megabytes of one process."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    return time.perf_counter() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
