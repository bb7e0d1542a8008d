"""Plan before training: the power with which a number of test texts shows a margin, and the number that is needed.

Sampling errors fall with the square root of the number of texts (Cohen 1988; non-inferiority: Julious 2004). One text's part in
them comes from finished claims (a pilot) or from an assumption. If only one of two is right on a share d of the texts, their
difference in accuracy has a standard deviation of √d per text. This module imports only Python's own library, because each dry
run imports it.
"""

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist, median
from typing import Any

from mllm.core.counting import counted

LEVEL = 0.025  # one-sided, as for each direction of a claim
POWER = 0.8
ASSUMED = 0.2  # assumed share of texts on which only one of two is right
CLEAN = {"official-clean": 0.4, "official": 1.0}  # share of the official test reviews that is kept
NORMAL = NormalDist()


@dataclass(frozen=True)
class Noise:
    """Hold how much a paired difference varies from text to text."""

    deviation: float
    """Standard deviation of one text's part in the difference; the standard error is this over √texts."""
    source: str
    """Where the number comes from, in words."""


def assumed(share: float = ASSUMED) -> Noise:
    """Return the noise of accuracy if only one of two is right on this share of the texts."""
    return Noise(share**0.5, f"assuming that only one of two is right on {100 * share:g} % of the texts")


def power(noise: Noise, texts: float, margin: float, lead: float = 0.0, claims: int = 1) -> float:
    """Return the probability of showing non-inferiority.

    Args:
        noise: of the difference.
        texts: number of texts on which both are compared.
        margin: how much worse still counts as no worse; 0 for superiority.
        lead: true difference.
        claims: number tested together; uses the hardest place of Holm's correction.
    """
    limit = NORMAL.inv_cdf(1 - LEVEL / claims)
    return NORMAL.cdf((margin + lead) * texts**0.5 / noise.deviation - limit)


def texts_needed(noise: Noise, margin: float, lead: float = 0.0, claims: int = 1, wanted: float = POWER) -> int:
    """Return the number of texts that show non-inferiority with the wanted power.

    Raises:
        ValueError: margin and lead add up to 0 or less, so that no number suffices.
    """
    if margin + lead <= 0:
        raise ValueError(f"margin {margin} and lead {lead}: found a sum of {margin + lead}, expected more than 0")
    deviates = NORMAL.inv_cdf(1 - LEVEL / claims) + NORMAL.inv_cdf(wanted)
    return -int(-((noise.deviation * deviates / (margin + lead)) ** 2) // 1)


def margin_shown(noise: Noise, texts: float, claims: int = 1, wanted: float = POWER) -> float:
    """Return the smallest margin within which an equal rival is shown to be, with the wanted power."""
    return noise.deviation / texts**0.5 * (NORMAL.inv_cdf(1 - LEVEL / claims) + NORMAL.inv_cdf(wanted))


def optimism(noise: Noise, texts: float, candidates: int) -> float:
    """Return how much too good the best of several equal and independent candidates looks on these texts, on average.

    It is the expected maximum of normal deviates, by Blom's approximation (1958). The difference of two candidates has twice the
    variance of one.
    """
    if candidates < 2:
        return 0.0
    return NORMAL.inv_cdf((candidates - 0.375) / (candidates + 0.25)) * noise.deviation / (2 * texts) ** 0.5


def pilot(results: Path, task: str) -> Noise | None:
    """Estimate the noise from a finished experiment's claims: the median over their 80 %-detectable differences.

    Args:
        results: its folder.
        task: the claims' task.
    """
    table, texts = results / "comparisons.csv", test_texts(results, task)
    if not table.exists() or not texts:
        return None
    with table.open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["task"] == task and r["claim"] == "true" and r["detectable"]]
    if not rows:
        return None
    error = median(float(r["detectable"]) for r in rows) / (NORMAL.inv_cdf(1 - LEVEL) + NORMAL.inv_cdf(POWER))
    return Noise(error * texts**0.5, f"from {counted(len(rows), 'claim')} of {results} in {rows[0]['metric']}")


def test_texts(results: Path, task: str) -> int | None:
    """Return the number of different test texts of a finished experiment's task; None where it has no scores."""
    for file in sorted((results / "scores").glob("*.json")):
        scores = json.loads(file.read_text(encoding="utf-8"))
        if scores.get("task") == task and "counts" in scores:
            return int(scores["counts"]["test"]["texts"])
    return None


def expected_texts(data: Any, split: Any, results: Path, rows: int, part: str = "test") -> int | None:
    """Return how many test or validation reviews an experiment will have; None where its files are not read yet.

    Args:
        data: the experiment's entry ``data``.
        split: the experiment's entry ``split``.
        results: its folder, which may have the split already.
        rows: number of all its reviews; 0 if unknown.
        part: test or valid.
    """
    done = results / "data/split.json"
    if done.exists():
        return int(json.loads(done.read_text(encoding="utf-8")).get("rows", {}).get(part, 0)) or None
    if data.source not in ("uci", "synthetic") or not rows:
        return None
    if part == "valid":
        return round(rows * split.valid * (1.0 if split.mode == "random" else 0.75))
    if split.mode == "random":
        return round(rows * (split.test or 0.25))
    return round(rows / 4 * (CLEAN[split.mode] if data.source == "uci" else 1.0))


def claims_of(candidates: Iterable[Any], task: str) -> int:
    """Count a task's claims beside the primary one: each merge method against the best expert, the best blend, every reference."""
    mine = [c for c in candidates if c.task == task]
    methods = {c.method for c in mine if c.kind == "merge"}
    kinds = {c.kind for c in mine if c.kind in ("expert", "blend")}
    rivals = len(kinds) + len({c.name for c in mine if c.kind == "reference"})
    return max(0, len(methods) * rivals - 1)


def line(noise: Noise, texts: int, margin: float) -> str:
    """Write the line of a dry run."""
    return (
        f"Planning: with {texts:,} test texts a margin of {margin:g} is shown with a power of {100 * power(noise, texts, margin):.0f} %"
        f" ({noise.source}; `mllm plan` has details)"
    )
