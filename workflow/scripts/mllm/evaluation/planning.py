"""Before anything is trained: which margin so many test texts show, with which power, and how many more would be needed.

Sampling errors fall with the root of the texts (Cohen 1988; non-inferiority: Julious 2004). One text's share in them is known from
finished claims (a pilot), or assumed: where one of two alone is right on a share d of the texts, their difference in accuracy
varies by √d per text. Only Python's own library is imported here: each dry run asks.
"""

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist, median
from typing import Any

LEVEL = 0.025  # one-sided, as each direction of a claim
POWER = 0.8
ASSUMED = 0.2  # share of texts on which one of two alone is right, where nothing is known
CLEAN = {"official-clean": 0.4, "official": 1.0}  # share of the official test reviews that is kept
NORMAL = NormalDist()


@dataclass(frozen=True)
class Noise:
    """How much a paired difference varies from text to text."""

    deviation: float
    """Standard deviation of one text's part in the difference: the standard error is this over the root of the texts."""
    source: str
    """Where it is known from, in words."""


def assumed(share: float = ASSUMED) -> Noise:
    """Of accuracy, where so large a share of texts has one of two alone right."""
    return Noise(share**0.5, f"assuming that one of two alone is right on {100 * share:g} % of the texts")


def power(noise: Noise, texts: float, margin: float, lead: float = 0.0, claims: int = 1) -> float:
    """Probability that non-inferiority is shown.

    Args:
        noise: of the difference.
        texts: on which both are compared.
        margin: how much worse still counts as no worse; 0 for superiority.
        lead: true difference.
        claims: tested together; the hardest place of Holm's correction.
    """
    limit = NORMAL.inv_cdf(1 - LEVEL / claims)
    return NORMAL.cdf((margin + lead) * texts**0.5 / noise.deviation - limit)


def texts_needed(noise: Noise, margin: float, lead: float = 0.0, claims: int = 1, wanted: float = POWER) -> int:
    """Texts with which non-inferiority is shown with the wanted power.

    Raises:
        ValueError: the margin and the lead together are not above 0, so that no number is enough.
    """
    if margin + lead <= 0:
        raise ValueError(f"margin {margin} and lead {lead}: found a sum of {margin + lead}, expected more than 0")
    deviates = NORMAL.inv_cdf(1 - LEVEL / claims) + NORMAL.inv_cdf(wanted)
    return -int(-((noise.deviation * deviates / (margin + lead)) ** 2) // 1)


def margin_shown(noise: Noise, texts: float, claims: int = 1, wanted: float = POWER) -> float:
    """The smallest margin that an equal rival is shown to be within, with the wanted power."""
    return noise.deviation / texts**0.5 * (NORMAL.inv_cdf(1 - LEVEL / claims) + NORMAL.inv_cdf(wanted))


def optimism(noise: Noise, texts: float, candidates: int) -> float:
    """By how much the best of so many equal and independent candidates looks too good on so many texts, on average.

    The expected largest of normal deviates, by Blom's approximation (1958). Candidates are alike in half of what varies: the
    difference of two has twice the variance of one.
    """
    if candidates < 2:
        return 0.0
    return NORMAL.inv_cdf((candidates - 0.375) / (candidates + 0.25)) * noise.deviation / (2 * texts) ** 0.5


def pilot(results: Path, task: str) -> Noise | None:
    """From a finished experiment's claims: the median over them of what the 80 %-detectable differences say.

    Args:
        results: its folder.
        task: whose claims; another's say nothing of it.
    """
    table, texts = results / "comparisons.csv", test_texts(results, task)
    if not table.exists() or not texts:
        return None
    with table.open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["task"] == task and r["claim"] == "true" and r["detectable"]]
    if not rows:
        return None
    error = median(float(r["detectable"]) for r in rows) / (NORMAL.inv_cdf(1 - LEVEL) + NORMAL.inv_cdf(POWER))
    return Noise(error * texts**0.5, f"by the {len(rows)} claims of {results} in {rows[0]['metric']}")


def test_texts(results: Path, task: str) -> int | None:
    """Different test texts of a finished experiment's task."""
    for file in sorted((results / "scores").glob("*.json")):
        scores = json.loads(file.read_text(encoding="utf-8"))
        if scores.get("task") == task and "counts" in scores:
            return int(scores["counts"]["test"]["texts"])
    return None


def expected_texts(data: Any, split: Any, results: Path, rows: int, part: str = "test") -> int | None:
    """Test or validation reviews that an experiment will have; None where its files are not read yet.

    Args:
        data: the experiment's entry.
        split: the experiment's entry.
        results: its folder, where the split may be there already.
        rows: of all its reviews, as far as they are known; else 0.
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
    """Claims of a task after the primary one: each merge method against the best expert, the best blend and every reference."""
    mine = [c for c in candidates if c.task == task]
    methods = {c.method for c in mine if c.kind == "merge"}
    kinds = {c.kind for c in mine if c.kind in ("expert", "blend")}
    rivals = len(kinds) + len({c.name for c in mine if c.kind == "reference"})
    return max(0, len(methods) * rivals - 1)


def line(noise: Noise, texts: int, margin: float) -> str:
    """What a dry run says."""
    return (
        f"Planning: with {texts:,} test texts a margin of {margin:g} is shown with a power of {100 * power(noise, texts, margin):.0f} %"
        f" ({noise.source}; mllm plan says more)"
    )
