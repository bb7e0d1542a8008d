"""Simulate coverage and family-wise error over several trainings; print the tables of docs/scores.md.

Each candidate's skill varies over trainings; rival and candidate are paired, and share a part of this variation. The
true score is the mean over trainings. Texts, trainings, and a text's effect in one training are drawn. `make simulate`
runs it, in minutes.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.special import ndtri

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow/scripts"))

from mllm.core.arrays import Array
from mllm.evaluation import bootstrap, claims, intervals, metrics, paired, replicates

MARGIN, RESAMPLES, CLASSES, AGREEMENT = 0.01, 400, 3, 0.6
SPREADS = (0.0, 0.02, 0.1)
SHARES = {"even": (1 / 3, 1 / 3, 1 / 3), "a class of 10 %": (0.55, 0.35, 0.1)}


def labels(rng: np.random.Generator, skill: Array, truth: Array, luck: Array) -> Array:
    """Draw labels of runs of known skills, (candidates, runs, texts); all share a text's chance, each adds its own."""
    own = rng.normal(size=(*skill.shape, len(truth)))
    right = np.sqrt(AGREEMENT) * luck + np.sqrt(1 - AGREEMENT) * own < ndtri(skill)[..., None]
    wrong = (truth + 1 + rng.integers(0, CLASSES - 1, len(truth))) % CLASSES
    return np.where(right, truth, wrong)


def skills(rng: np.random.Generator, mean: Array, runs: int, spread: float) -> Array:
    """Draw skills, (candidates, runs); half of a training's variance is common to all candidates of a replicate."""
    common, own = rng.normal(size=runs), rng.normal(size=(len(mean), runs))
    return np.clip(mean[:, None] + spread * np.sqrt(0.5) * (common + own), 0.02, 0.98)


def of_accuracy(truth: Array, said: Array, other: Array) -> replicates.Spread:
    """Return the difference of accuracies of two candidates' runs, (runs, texts) each, as `compare` makes it."""
    gain = (said == truth).astype(float) - (other == truth)
    if len(gain) == 1:
        return paired.of_shares(gain[0], MARGIN).spread
    return replicates.spread(gain.mean(axis=1), np.cov(gain) / gain.shape[1], 1 / gain.shape[1])


def of_macro_f1(truth: Array, said: Array, other: Array, seed: int) -> paired.Difference:
    """Return the difference of macro-F1, from shared resamples."""
    sample = bootstrap.Sample(truth, np.arange(len(truth)), CLASSES, False, seed, RESAMPLES)
    sure = np.log(np.eye(CLASSES) * 0.9 + 0.03)
    both = [sample.evaluate_all([sure[run] for run in runs]) for runs in (said, other)]
    values = np.array([a.values["macro_f1"] - b.values["macro_f1"] for a, b in zip(*both, strict=True)])
    draws = np.stack([a.draws["macro_f1"] - b.draws["macro_f1"] for a, b in zip(*both, strict=True)])
    function = metrics.OF_CONFUSION["macro_f1"]
    reach = float(np.mean([intervals.reach(function, one.confusion) for side in both for one in side]))
    if len(values) == 1:
        return paired.of_draws(float(values[0]), draws[0], reach, MARGIN)
    return paired.of_runs(replicates.spread(values, np.cov(draws), reach), MARGIN)


def of_score(truth: Array, said: Array, seed: int) -> tuple[float, float]:
    """Return the interval of one candidate's macro-F1 over its runs, as the leaderboard makes it."""
    sample = bootstrap.Sample(truth, np.arange(len(truth)), CLASSES, False, seed, RESAMPLES)
    found = sample.evaluate_all([np.log(np.eye(CLASSES) * 0.9 + 0.03)[run] for run in said])
    ends = [one.intervals()["macro_f1"] for one in found]
    values, lows, highs = (np.array([of[key] for of in ends]) for key in ("value", "low", "high"))
    _, low, high = replicates.interval(values, lows, highs, np.cov([one.draws["macro_f1"] for one in found]))
    return low, high


def score_coverage(texts: int, shares: tuple[float, ...], runs: int, spread: float, tries: int) -> float:
    """Return the share of experiments whose interval of a candidate's macro-F1 contains the mean over trainings."""
    rng, mean, held = np.random.default_rng([texts, runs, int(1000 * spread)]), np.array([0.7, 0.73]), 0
    skill = skills(np.random.default_rng(0), mean, 20_000, spread)
    true = float(metrics.OF_CONFUSION["macro_f1"](matrices(shares, skill))[0].mean())
    for n in range(tries):
        truth = rng.choice(CLASSES, texts, p=shares)
        said = labels(rng, skills(rng, mean, runs, spread), truth, rng.normal(size=texts))[0]
        low, high = of_score(truth, said, n)
        held += low <= true <= high
    return held / tries


def coverage(metric: str, texts: int, shares: tuple[float, ...], runs: int, spread: float, tries: int) -> float:
    """Return the share of experiments whose interval of a difference contains the mean over trainings."""
    rng, mean, held = np.random.default_rng([texts, runs, int(1000 * spread)]), np.array([0.7, 0.73]), 0
    true = expected(metric, shares, mean, spread)
    for n in range(tries):
        truth, skill = rng.choice(CLASSES, texts, p=shares), skills(rng, mean, runs, spread)
        said, other = labels(rng, skill, truth, rng.normal(size=texts))
        if metric == "macro_f1":
            found = of_macro_f1(truth, said, other, n)
            held += found.low <= true <= found.high
        elif runs == 1:
            one = paired.of_shares((said[0] == truth).astype(float) - (other[0] == truth), MARGIN)
            held += one.low <= true <= one.high
        else:
            two = of_accuracy(truth, said, other)
            held += abs(two.value - true) <= two.half()
    return held / tries


def expected(metric: str, shares: tuple[float, ...], mean: Array, spread: float) -> float:
    """Return the difference of the metric of the expected confusion matrices, over trainings."""
    skill = skills(np.random.default_rng(0), mean, 20_000, spread)
    values = metrics.OF_CONFUSION[metric](matrices(shares, skill)).mean(axis=1)
    return float(values[0] - values[1])


def matrices(shares: tuple[float, ...], skill: Array) -> Array:
    """Return skills' expected confusion, (…, classes, classes), in which all wrong labels are equally frequent."""
    matrix = np.asarray(shares)[:, None] * np.ones(CLASSES) / (CLASSES - 1) * (1 - skill[..., None, None])
    at = np.arange(CLASSES)
    matrix[..., at, at] = np.asarray(shares) * skill[..., None]
    return np.asarray(matrix)


def family_wise(texts: int, runs: int, spread: float, count: int, off: float, tries: int) -> float:
    """Return the share of experiments with any false claim of accuracy; all rivals are better by ``off``."""
    rng, wrong, mean = np.random.default_rng([count, runs, int(1000 * spread)]), 0, np.full(count + 1, 0.7)
    mean[1:] += off
    false = {0.0: {"better", "behind", "worse"}, MARGIN: {"no worse", "better", "worse"}}[off]
    for _ in range(tries):
        truth, skill = rng.choice(CLASSES, texts), skills(rng, mean, runs, spread)
        said = labels(rng, skill, truth, rng.normal(size=texts))
        tests = [paired.of_runs(of_accuracy(truth, said[0], other), MARGIN).tests for other in said[1:]]
        p = {k: np.array([getattr(t, k) for t in tests]) for k in ("not_worse", "better", "behind", "worse")}
        up, down = claims.adjusted(p["not_worse"], p["better"]), claims.adjusted(p["behind"], p["worse"])
        wrong += any(claims.strongest(up[1][i], up[0][i], down[0][i], down[1][i]) in false for i in range(count))
    return wrong / tries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=2000, help="experiments per entry; slow parts use fewer")
    parser.add_argument("--part", choices=["accuracy", "macro-F1", "claims"], help="only one table's rows")
    arguments = parser.parse_args()
    tries, wanted = arguments.tries, [arguments.part] if arguments.part else ["accuracy", "macro-F1", "claims"]
    print("| coverage of 95 % intervals, over texts and trainings | texts | spread of trainings | 2 runs | 3 runs | 5 runs |\n| --- | ---: | ---: | ---: | ---: | ---: |")  # fmt: skip
    if "accuracy" in wanted:
        for texts, less in ((50, 1), (400, 1), (2000, 1), (20_000, 4)):
            show(
                "difference of accuracies", texts, lambda *of: coverage("accuracy", *of), SHARES["even"], tries // less
            )
    if "macro-F1" in wanted:
        for name, shares in SHARES.items():
            for texts in (400, 2000):
                show(
                    f"difference of macro-F1, {name}", texts, lambda *of: coverage("macro_f1", *of), shares, tries // 5
                )
        for texts in (400, 2000):
            show("macro-F1 of one candidate", texts, score_coverage, SHARES["even"], tries // 5)
    if "claims" not in wanted:
        return
    print("\n| intervals over texts alone, of one run, hold the mean over trainings | texts | spread of trainings | 1 run |\n| --- | ---: | ---: | ---: |")  # fmt: skip
    for spread in SPREADS:
        held = coverage("accuracy", 400, SHARES["even"], 1, spread, tries)
        print(f"| difference of accuracies | 400 | {spread:g} | {held:.1%} |", flush=True)
    print("\n| any false statement among claims of accuracy, 400 texts | runs | spread of trainings | all differences 0 | all at −margin |\n| --- | ---: | ---: | ---: | ---: |")  # fmt: skip
    for count in (2, 12, 30):
        for runs in (2, 3, 5):
            for spread in SPREADS[1:]:
                found = [family_wise(400, runs, spread, count, off, tries // 4) for off in (0.0, MARGIN)]
                print(f"| {count} claims | {runs} | {spread:g} | {found[0]:.1%} | {found[1]:.1%} |", flush=True)


def show(name: str, texts: int, function: Callable[..., float], shares: tuple[float, ...], tries: int) -> None:
    """Print one row for each spread of trainings."""
    for spread in SPREADS:
        found = [function(texts, shares, runs, spread, tries) for runs in (2, 3, 5)]
        print(f"| {name} | {texts:,} | {spread:g} | {' | '.join(f'{share:.1%}' for share in found)} |", flush=True)


if __name__ == "__main__":
    main()
