"""Simulate coverage over several tasks, of mean and lowest normalised score; print the table of docs/tasks.md.

One split has three tasks, the third with labels for 40 % of the texts. One model is compared with three experts, and a
second model with the first. All are right by correlated chance on a text; the probabilities give the true scores. `make
simulate` runs it.
"""

import argparse
import sys
from collections.abc import Sequence
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from scipy.special import ndtri

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow/scripts"))

from mllm.core.arrays import Array
from mllm.evaluation import bootstrap, intervals, metrics, normalised

RESAMPLES, CLASSES, AGREEMENT, MARGIN = 400, 3, 0.6, 0.01
SHARES = (0.5, 0.3, 0.2)
LABELLED = (1.0, 1.0, 0.4)
SKILLS = {"one task loses most": (0.78, 0.7, 0.6), "all tasks lose alike": (0.72, 0.72, 0.72)}
"""The model's probabilities of the right label, by task; each expert's is 0.8, the other model's 0.7."""
EXPERT, OTHER = 0.8, 0.7


def said(rng: np.random.Generator, skill: Array, truth: Array, luck: Array) -> Array:
    """Draw labels of runs of known skills, (runs, texts); runs and tasks share a text's chance."""
    own = rng.normal(size=(len(skill), len(truth)))
    right = np.sqrt(AGREEMENT) * luck + np.sqrt(1 - AGREEMENT) * own < ndtri(skill)[:, None]
    wrong = (truth + 1 + rng.integers(0, CLASSES - 1, len(truth))) % CLASSES
    return np.where(right, truth, wrong)


def measured(name: str, sample: bootstrap.Sample, labels: Array, metric: str) -> normalised.Measured:
    """Return a candidate's runs on one task, as ``compare`` has them."""
    found = sample.evaluate_all(list(np.log(np.eye(CLASSES) * 0.9 + 0.03)[labels]))
    reach = np.mean([intervals.reach(metrics.OF_CONFUSION[metric], one.confusion) for one in found])
    values, draws = np.array([one.values[metric] for one in found]), np.stack([one.draws[metric] for one in found])
    return normalised.Measured(name, values, draws, float(reach))


def true_value(metric: str, skill: Array) -> Array:
    """Return the metric of the expected confusion matrices, (skills,); all wrong labels are equally frequent."""
    matrix = np.asarray(SHARES)[:, None] * np.ones(CLASSES) / (CLASSES - 1) * (1 - np.asarray(skill)[:, None, None])
    at = np.arange(CLASSES)
    matrix[..., at, at] = np.asarray(SHARES) * np.asarray(skill)[:, None]
    return np.asarray(metrics.OF_CONFUSION[metric](matrix))


def experiment(
    rng: np.random.Generator, texts: int, skills: Sequence[float], metric: str, trained: tuple[int, float]
) -> tuple[dict[str, normalised.Number], dict[str, normalised.Number]]:
    """Return both models' normalised scores in one experiment; ``trained``: each candidate's runs, their skills'
    spread."""
    (runs, spread), luck, split = trained, rng.normal(size=texts), np.arange(texts)
    seed, mine, others = int(rng.integers(2**32)), {}, {}
    for task, (skill, share) in enumerate(zip(skills, LABELLED, strict=True)):
        own = np.sort(rng.permutation(texts)[: int(share * texts)])
        truth = rng.choice(CLASSES, len(own), p=SHARES)
        sample = bootstrap.Sample(truth, own, CLASSES, False, seed, RESAMPLES, split)
        model, other, expert = (
            measured(name, sample, said(rng, np.clip(mean + spread * rng.normal(size=runs), 0.02, 0.98), truth, luck[own]), metric)
            for name, mean in (("model", skill), ("other", OTHER), ("expert", EXPERT))
        )  # fmt: skip
        mine[str(task)] = normalised.ratio(model, expert, metric, str(task))
        others[str(task)] = normalised.ratio(other, expert, metric, str(task))
    return mine, others


def coverage(job: tuple[str, str, int, int, float, int]) -> str:
    """Return a row: shares of experiments whose intervals of mean, lowest and difference contain the true values."""
    world, metric, texts, runs, spread, tries = job
    rng, skills = np.random.default_rng([texts, runs, int(1000 * spread)]), SKILLS[world]
    true, other = (
        true_value(metric, np.array(of)) / true_value(metric, np.array([EXPERT])) for of in (skills, [OTHER])
    )
    truth = {"mean": float(true.mean()), "worst": float(true.min()), "difference": float(true.mean() - other[0])}
    held = dict.fromkeys(truth, 0)
    for _ in range(tries):
        mine, others = experiment(rng, texts, skills, metric, (runs, spread))
        between = (normalised.over_tasks(mine, "mean") - normalised.over_tasks(others, "mean")).tested()
        ends = {how: normalised.interval(mine, how) for how in ("mean", "worst")} | {
            "difference": (between.low, between.high)
        }
        for what, (low, high) in ends.items():
            held[what] += low <= truth[what] <= high
    cells = " | ".join(f"{count / tries:.1%}" for count in held.values())
    return f"| {world} | {metric} | {texts:,} | {runs} | {spread:g} | {cells} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=1000, help="experiments per row")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    jobs = [
        (world, metric, texts, runs, spread, arguments.tries)
        for world in SKILLS
        for metric in ("accuracy", "macro_f1")
        for texts in (200, 1000)
        for runs, spread in ((1, 0.0), (3, 0.02))
    ]
    print(
        "| coverage of 95 % intervals of normalised scores | metric | texts | runs | spread of trainings | mean | worst |"
    )
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    with Pool(arguments.processes) as pool:
        for line in pool.imap(coverage, jobs):
            print(line, flush=True)


if __name__ == "__main__":
    main()
