"""Simulate what intervals and claims promise: coverage of 95 % intervals, family-wise error; prints the table of docs/scores.md.

Two or more candidates are right on texts by correlated chance; truth is known from the probabilities. Each scenario draws many
experiments, makes the differences and claims as `compare` does, and counts. `make simulate` runs it, in minutes.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtri

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow/scripts"))

from mllm.core.arrays import Array
from mllm.evaluation import claims, intervals, metrics, paired

MARGIN, DRAWS = 0.01, 1000
Shares = tuple[float, ...]


def experiment(
    rng: np.random.Generator, texts: int, shares: Shares, skills: Any, agreement: float, copies: int = 1
) -> tuple[Array, Array, Array]:
    """Classes, labels of each candidate, and texts; candidates share the luck of a text to the degree of their agreement.

    Args:
        rng: of all draws.
        texts: how many.
        shares: of the classes.
        skills: (candidates, classes) probabilities of the right label.
        agreement: correlation of the candidates' luck.
        copies: a text is in 1 to so many reviews, of one class and one label.
    """
    truth = rng.choice(len(shares), texts, p=shares)
    luck = np.sqrt(agreement) * rng.normal(size=texts) + np.sqrt(1 - agreement) * rng.normal(size=(len(skills), texts))
    wrong = (truth + 1 + rng.integers(0, len(shares) - 1, texts)) % len(shares)
    labels = np.where(luck < ndtri(np.asarray(skills))[:, truth], truth, wrong)
    groups = np.repeat(np.arange(texts), rng.integers(1, copies + 1, texts))
    return truth[groups], labels[:, groups], groups


def true_value(metric: str, shares: Any, skill: Any) -> float:
    """The metric of the expected confusion matrix, in which each wrong label is as frequent."""
    shares, skill, k = np.asarray(shares), np.asarray(skill), len(shares)
    confusion = np.repeat((shares * (1 - skill) / (k - 1))[:, None], k, axis=1)
    confusion[np.arange(k), np.arange(k)] = shares * skill
    return float(metrics.OF_CONFUSION[metric](confusion[None])[0])


def difference(
    metric: str, truth: Array, a: Array, b: Array, groups: Array, classes: int, seed: int
) -> paired.Difference:
    if metric == "accuracy":
        first = np.unique(groups, return_index=True)[1]
        return paired.of_shares(((a == truth).astype(float) - (b == truth))[first], MARGIN)
    function = metrics.OF_CONFUSION[metric]
    sums, count = paired.kinds(truth, a, b, groups, classes)
    draws = paired.draw(function, sums, count, classes, DRAWS, seed)
    matrices = [(count @ one).reshape(classes, classes) for one in sums]
    value = float(function(matrices[0][None])[0] - function(matrices[1][None])[0])
    return paired.of_draws(value, draws, max(intervals.reach(function, m) for m in matrices), MARGIN, seed)


def coverage(
    metric: str, texts: int, shares: Shares, skills: Any, agreement: float, copies: int, runs: int, seed: int = 0
) -> float:
    """Share of experiments whose interval of a difference holds the true one."""
    rng, true = (
        np.random.default_rng(seed),
        true_value(metric, shares, skills[0]) - true_value(metric, shares, skills[1]),
    )
    held = 0
    for run in range(runs):
        truth, (a, b), groups = experiment(rng, texts, shares, skills, agreement, copies)
        found = difference(metric, truth, a, b, groups, len(shares), run)
        held += found.low <= true <= found.high
    return held / runs


def family_wise(
    texts: int, shares: Shares, count: int, off: float, agreement: float, runs: int, seed: int = 0
) -> float:
    """Share of experiments with any false statement among so many claims of accuracy; all rivals are better by ``off``."""
    rng, base = np.random.default_rng(seed), 0.7
    skills = np.full((count + 1, len(shares)), base)
    skills[1:] += off  # the rivals
    false = {0.0: {"better", "behind", "worse"}, MARGIN: {"no worse", "better", "worse"}}[off]
    wrong = 0
    for run in range(runs):
        truth, labels, groups = experiment(rng, texts, shares, skills, agreement)
        tests = [difference("accuracy", truth, labels[0], b, groups, len(shares), run).tests for b in labels[1:]]
        p = {k: np.array([getattr(t, k) for t in tests]) for k in ("not_worse", "better", "behind", "worse")}
        up, down = claims.adjusted(p["not_worse"], p["better"]), claims.adjusted(p["behind"], p["worse"])
        wrong += any(claims.strongest(up[1][i], up[0][i], down[0][i], down[1][i]) in false for i in range(count))
    return wrong / runs


EVEN, RARE = (1 / 3, 1 / 3, 1 / 3), (0.6, 0.37, 0.03)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    runs = parser.parse_args().runs
    print("| coverage of 95 % intervals of a difference | texts | accuracy | macro-F1 |\n| --- | ---: | ---: | ---: |")
    scenarios = [
        (f"{name}", texts, shares, skills, agreement, copies)
        for name, shares, skills, agreement, copies in (
            ("even classes", EVEN, ((0.7,) * 3, (0.72,) * 3), 0.6, 1),
            ("texts in 1 to 4 reviews", EVEN, ((0.7,) * 3, (0.72,) * 3), 0.6, 4),
            ("high agreement", EVEN, ((0.9,) * 3, (0.905,) * 3), 0.999, 1),
            ("a class of 3 %", RARE, ((0.8, 0.7, 0.4), (0.8, 0.7, 0.5)), 0.6, 1),
        )
        for texts in (50, 400, 2000, 50_000)
    ]
    for name, texts, shares, skills, agreement, copies in scenarios:
        tried = runs if texts < 10_000 else max(100, runs // 5)
        found = [
            coverage(metric, texts, shares, skills, agreement, copies, tried) for metric in ("accuracy", "macro_f1")
        ]
        print(f"| {name} | {texts:,} | {found[0]:.1%} | {found[1]:.1%} |", flush=True)
    print(
        "\n| any false statement among claims of accuracy | texts | all differences 0 | all at −margin |\n| --- | ---: | ---: | ---: |"
    )
    for count in (2, 12, 30):
        for texts in (200, 2000):
            found = [family_wise(texts, EVEN, count, off, 0.6, runs) for off in (0.0, MARGIN)]
            print(f"| {count} claims | {texts:,} | {found[0]:.1%} | {found[1]:.1%} |", flush=True)


if __name__ == "__main__":
    main()
