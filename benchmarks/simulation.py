"""Simulate coverage of 95 % intervals and family-wise error of claims; print the table of docs/scores.md.

Two or more candidates are right on texts by correlated chance; the probabilities give the true scores. Each scenario
draws many experiments, makes differences and claims as `compare` does, and counts errors. `make simulate` runs it.
"""

import argparse
import sys
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtri

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow/scripts"))

from mllm.core.arrays import Array
from mllm.evaluation import claims, delta, intervals, metrics, paired

MARGIN = 0.01
Shares = tuple[float, ...]


def experiment(
    rng: np.random.Generator, texts: int, shares: Shares, skills: Any, agreement: float, copies: int = 1
) -> tuple[Array, Array, Array]:
    """Draw classes, labels of each candidate, and texts; candidates' chances on a text are correlated.

    Args:
        rng: generator of all draws.
        texts: number of texts.
        shares: (classes,) shares of the classes.
        skills: (candidates, classes) probabilities of the right label.
        agreement: correlation of the candidates' chances.
        copies: a text is in 1 to this many reviews, all with one class and one label.
    """
    truth = rng.choice(len(shares), texts, p=shares)
    luck = np.sqrt(agreement) * rng.normal(size=texts) + np.sqrt(1 - agreement) * rng.normal(size=(len(skills), texts))
    wrong = (truth + 1 + rng.integers(0, len(shares) - 1, texts)) % len(shares)
    labels = np.where(luck < ndtri(np.asarray(skills))[:, truth], truth, wrong)
    groups = np.repeat(np.arange(texts), rng.integers(1, copies + 1, texts))
    return truth[groups], labels[:, groups], groups


def true_value(metric: str, shares: Any, skill: Any) -> float:
    """Return the metric of the expected confusion matrix, in which all wrong labels are equally frequent."""
    shares, skill, k = np.asarray(shares), np.asarray(skill), len(shares)
    confusion = np.repeat((shares * (1 - skill) / (k - 1))[:, None], k, axis=1)
    confusion[np.arange(k), np.arange(k)] = shares * skill
    return float(metrics.OF_CONFUSION[metric](confusion[None])[0])


def difference(
    metric: str, truth: Array, a: Array, b: Array, groups: Array, classes: int, seed: int, draws: int
) -> paired.Difference:
    """Return the difference of one pair of runs, as ``compare`` makes it."""
    if metric == "accuracy":
        first = np.unique(groups, return_index=True)[1]
        return paired.of_shares(((a == truth).astype(float) - (b == truth))[first], MARGIN)
    function = metrics.OF_CONFUSION[metric]
    sums, count = paired.kinds(truth, a, b, groups, classes)
    drawn = paired.draw(function, sums, count, classes, draws, seed)
    matrices = [(count @ one).reshape(classes, classes) for one in sums]
    value = float(function(matrices[0][None])[0] - function(matrices[1][None])[0])
    return paired.of_draws(value, drawn, max(intervals.reach(function, m) for m in matrices), MARGIN, seed)


def linearised(truth: Array, a: Array, b: Array, groups: Array, classes: int) -> tuple[float, float]:
    """Return the ends of the interval without resamples, as for tuned decisions."""
    _, text, size = np.unique(groups, return_inverse=True, return_counts=True)
    of = [delta.of_decisions(metrics.macro_f1, truth, label, 1 / size[text], classes) for label in (a, b)]
    return paired.of_decisions(metrics.macro_f1, of[0], of[1], text)[1:]


@dataclass(frozen=True)
class World:
    """How experiments are drawn."""

    name: str
    shares: Shares
    skills: tuple[tuple[float, ...], tuple[float, ...]]
    """Probabilities of the right label by class, of the candidate and of a rival."""
    agreement: float = 0.6
    copies: int = 1


def coverage(world: World, texts: int, runs: int) -> str:
    """Return a row: shares of experiments whose interval of a difference contains the true one."""
    rng, classes = np.random.default_rng(texts), len(world.shares)
    true = {
        m: true_value(m, world.shares, world.skills[0]) - true_value(m, world.shares, world.skills[1]) for m in METRICS
    }
    held = np.zeros(3)
    for run in range(runs):
        truth, (a, b), groups = experiment(rng, texts, world.shares, world.skills, world.agreement, world.copies)
        ends = [(d.low, d.high) for d in (difference(m, truth, a, b, groups, classes, run, 1000) for m in METRICS)]
        ends.append(linearised(truth, a, b, groups, classes))
        held += [low <= true[m] <= high for m, (low, high) in zip((*METRICS, "macro_f1"), ends, strict=True)]
    return f"| {world.name} | {texts:,} | " + " | ".join(f"{h / runs:.1%}" for h in held) + " |"


def family_wise(world: World, metric: str, texts: int, count: int, runs: int) -> str:
    """Return a row: shares of experiments with any false statement among ``claims`` claims, at both borders.

    Rivals are as good as the candidate, or better by the margin in accuracy (all classes alike).
    """
    cells, classes = [], len(world.shares)
    for off in (0.0, MARGIN) if metric == "accuracy" else (0.0,):
        rng = np.random.default_rng(count * texts)
        skills = np.tile(world.skills[0], (count + 1, 1))
        skills[1:] += off
        false = {0.0: {"better", "behind", "worse"}, MARGIN: {"no worse", "better", "worse"}}[off]
        wrong = 0
        for run in range(runs):
            truth, labels, groups = experiment(rng, texts, world.shares, skills, world.agreement, world.copies)
            tests = [
                difference(metric, truth, labels[0], b, groups, classes, run, paired.DRAWS).tests for b in labels[1:]
            ]
            p = {k: np.array([getattr(t, k) for t in tests]) for k in ("not_worse", "better", "behind", "worse")}
            up, down = claims.adjusted(p["not_worse"], p["better"]), claims.adjusted(p["behind"], p["worse"])
            wrong += any(claims.strongest(up[1][i], up[0][i], down[0][i], down[1][i]) in false for i in range(count))
        cells.append(f"{wrong / runs:.1%}")
    return f"| {world.name} | {metric} | {count} | {texts:,} | " + " | ".join([*cells, "–"][:2]) + " |"


METRICS = ("accuracy", "macro_f1")
EVEN, RARE = (1 / 3, 1 / 3, 1 / 3), (0.6, 0.37, 0.03)
WORLDS = (
    World("even classes", EVEN, ((0.7,) * 3, (0.72,) * 3)),
    World("texts in 1 to 4 reviews", EVEN, ((0.7,) * 3, (0.72,) * 3), copies=4),
    World("high agreement", EVEN, ((0.9,) * 3, (0.905,) * 3), agreement=0.999),
    World("ties: no text differs", EVEN, ((0.8,) * 3, (0.8,) * 3), agreement=1.0),
    World("a class of 3 %", RARE, ((0.8, 0.7, 0.4), (0.8, 0.7, 0.5))),
)
SIZES = (50, 400, 2000, 50_000)
FAMILIES = (
    *((WORLDS[0], "accuracy", texts, count) for count in (2, 12, 30) for texts in (50, 200, 2000, 20_000)),
    *((WORLDS[1], "accuracy", texts, 12) for texts in (200, 2000)),
    *((WORLDS[2], "accuracy", texts, 12) for texts in (200, 2000)),
    *((WORLDS[0], "macro_f1", texts, count) for count, texts in ((2, 200), (12, 200), (30, 200), (12, 2000))),
    *((WORLDS[1], "macro_f1", texts, 12) for texts in (200, 2000)),
    *((WORLDS[4], "macro_f1", texts, 12) for texts in (200, 700, 2000)),
)  # fmt: skip


def row(job: tuple[Any, ...]) -> str:
    """Print one row of a table."""
    what, *arguments = job
    return coverage(*arguments) if what == "coverage" else family_wise(*arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    runs = arguments.runs
    covered = [("coverage", world, n, runs if n < 10_000 else max(20, runs // 5)) for world in WORLDS for n in SIZES]
    wise = [("families", *one, runs if one[1] == "accuracy" else max(20, runs // 2)) for one in FAMILIES]
    with Pool(arguments.processes) as pool:
        print(
            "| coverage of 95 % intervals of a difference | texts | accuracy | macro-F1 | macro-F1 without resamples |"
        )
        print("| --- | ---: | ---: | ---: | ---: |")
        print("\n".join(pool.imap(row, covered)), flush=True)
        print("\n| any false statement among claims | metric | claims | texts | all differences 0 | all at −margin |")
        print("| --- | --- | ---: | ---: | ---: | ---: |")
        print("\n".join(pool.imap(row, wise)), flush=True)


if __name__ == "__main__":
    main()
