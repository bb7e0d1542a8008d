"""The verdict on tables like those of 2024, sentence by sentence, each number made again from the tables with plain arithmetic.

The tables: five experts, four merges of them, one large reference, ten classes, no ids and no texts, so that copies show only as rows
that all models answer alike. The reference is less accurate and far better calibrated.
"""

import json
import re

import numpy as np
import polars as pl
import pytest
from scipy.stats import norm

from conftest import run_script
from mllm.evaluation import verdict

ROWS, COPIES, MARGIN = 3000, 60, 0.01
SHARES = np.array([0.14, 0.04, 0.04, 0.03, 0.05, 0.04, 0.06, 0.11, 0.17, 0.32])
EXPERTS, MERGES = [f"expert_{k}" for k in range(5)], ["linear", "ties", "dare_linear", "dare_ties"]


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """The folder of the results, the probabilities by candidate, the true classes."""
    folder = tmp_path_factory.mktemp("tables")
    rng = np.random.default_rng(24)
    truth, hard = rng.choice(10, ROWS, p=SHARES), rng.normal(size=(ROWS, 10))
    skill = {
        **dict.fromkeys(EXPERTS, 1.0),
        "expert_1": 1.12,
        "ties": 1.18,
        "dare_ties": 1.1,
        "linear": 1.0,
        "dare_linear": 1.0,
        "gpt2_xl": 0.95,
    }
    sharp = {name: 1.0 if name == "gpt2_xl" else 4.0 for name in skill}
    (folder / "tables").mkdir()
    tables = {}
    for name, of in skill.items():
        logits = hard + 0.5 * rng.normal(size=(ROWS, 10)) + of * np.eye(10)[truth] + 0.4 * np.log(SHARES)
        logits = sharp[name] * logits
        p = np.exp(logits - logits.max(1, keepdims=True))
        p = (p / p.sum(1, keepdims=True)).astype(np.float32)
        p[-COPIES:] = p[:COPIES]
        tables[name] = p
    truth[-COPIES:] = truth[:COPIES]
    for name, p in tables.items():
        columns = {str(k): p[:, k] for k in range(10)}
        pl.DataFrame({**columns, "true_label": truth}).write_parquet(folder / f"tables/{name}.parquet")
    experiment = {
        "name": "old", "data": {"source": "predictions"}, "split": {"mode": "random", "valid": 0.3},
        "tasks": [{"name": "rating", "label": "rating"}],
        "candidates": {
            "from": str(folder / "tables"), "label": "true_label", "columns": [str(k) for k in range(10)], "values": "probabilities",
            "kinds": {"expert": ["expert_*"], "merge": MERGES, "reference": ["gpt2_xl"]},
            "parameters": {"gpt2_xl": 1_557_627_200, "*": 124_447_488},
        },
        "compare": {"metric": "accuracy", "margin": MARGIN},
    }  # fmt: skip
    (folder / "old.yaml").write_text(json.dumps(experiment))
    common = ["--experiment", folder / "old.yaml", "--results", folder / "results"]
    run_script("import_predictions", *common)
    run_script("score", *common, "--output", folder / "results/scores")
    run_script("leaderboard", *common)
    run_script("compare", *common)
    return folder / "results", tables, truth


@pytest.fixture(scope="module")
def said(judged):
    return (judged[0] / "verdict.md").read_text()


@pytest.fixture(scope="module")
def right(judged):
    """split -> candidate -> (reviews,) whether its label is right."""
    results, tables, truth = judged
    rows = {s: pl.read_parquet(results / f"data/{s}.parquet")["review_id"].to_numpy() for s in ("valid", "test")}
    return {s: {n: (p.argmax(1) == truth)[of] for n, p in tables.items()} for s, of in rows.items()}


def sentence(said, start):
    (line,) = [line for line in said.splitlines() if line.startswith(start)]
    return line


def numbers(text):
    return [float(n) for n in re.findall(r"[-+]?\d\.\d{3}", text)]


def test_the_winner_is_validations_and_its_texts_are_counted_honestly(judged, said, right):
    results, tables, _ = judged
    best = max(MERGES, key=lambda m: right["valid"][m].mean())
    line = sentence(said, "Task rating (10 classes)")
    assert f"**{best}**, the best of 4 merges on validation: accuracy {right['test'][best].mean():.3f}" in line
    rows = {s: pl.read_parquet(results / f"data/{s}.parquet")["review_id"].to_list() for s in ("valid", "test")}
    vectors = np.concatenate(list(tables.values()), axis=1)
    unlike = {s: {vectors[i].tobytes() for i in of} for s, of in rows.items()}
    both = len(unlike["valid"] & unlike["test"])
    assert len(unlike["test"]) < len(rows["test"]) and both > 0
    assert (
        f"on {len(rows['test']):,} test reviews, at most {len(unlike['test']):,} different texts, {both:,} of them also in validation"
        in line
    )
    assert "different test texts" not in said


def test_the_primary_claim_is_against_the_large_reference(said, right):
    """Its difference, Tango's interval and p-value by another formula, the cost, and where accuracy and likelihood disagree."""
    best, a, n = "ties", right["test"]["ties"], len(right["test"]["ties"])
    line, b = sentence(said, "- Primary claim:"), right["test"]["gpt2_xl"]
    assert f"the reference, gpt2_xl, 1.56G parameters: {a.mean() - b.mean():+.3f}" in line and best in said
    only_a, only_b = (a & ~b).sum(), (b & ~a).sum()
    # At a null of 0 Tango's statistic is McNemar's.
    p = 2 * norm.sf((only_a - only_b) / np.sqrt(only_a + only_b))
    assert "better than the reference, gpt2_xl, 1.56G parameters" in line
    assert f"corrected p {p:.2g}." in line if p >= 0.001 else "corrected p < 0.001." in line
    value, low, high = numbers(line)[:3]
    error = np.sqrt(((a.astype(float) - b) - value).var() / n)
    assert (low, high) == pytest.approx((value - 1.96 * error, value + 1.96 * error), abs=0.002)
    assert "Measures disagree: ahead in accuracy" in line and "behind in likelihood, -" in line
    assert "It needs 1/12.5 of the parameters." in line


def test_other_claims_say_what_is_not_known(said, right):
    line = sentence(said, "- Claim: **not shown** against the best expert, expert_1")
    a, b = right["test"]["ties"], right["test"]["expert_1"]
    value, low, high = numbers(line)[:3]
    assert value == pytest.approx(a.mean() - b.mean(), abs=6e-4) and low < -MARGIN < high
    assert "A loss of more than 0.01 is not ruled out (corrected p" in line and "0.025 needed" in line
    alone, corrected = numbers(line[line.index("A test alone") :])
    assert alone == pytest.approx((1.96 + 0.8416) * (high - low) / 3.92, abs=1e-3)
    assert corrected / alone == pytest.approx((norm.isf(0.025 / 7) + 0.8416) / (1.96 + 0.8416), abs=0.05)
    assert "after correction over 7 claims" in line  # four winners, two rivals each, one of them primary
    assert "The primary claim is tested alone, the 7 other claims of this task after Holm correction" in said


def test_the_choice_is_as_sure_as_it_is(said, right):
    """Optimism, stability, the score where it was not chosen: from resamples drawn here."""
    valid, test = right["valid"], right["test"]
    n = len(valid["ties"])
    first, second = sentence(said, "- It was chosen among 4:"), sentence(said, "- In ")
    assert (
        f"{valid['ties'].mean():.3f} on validation, {test['ties'].mean():.3f} on test, an optimism of {valid['ties'].mean() - test['ties'].mean():+.3f}"
        in first
    )
    rng, again, judged_by = np.random.default_rng(1), 0, []
    for _ in range(1000):
        drawn = rng.integers(0, n, n)
        out = np.setdiff1d(np.arange(n), drawn)
        best = max(MERGES, key=lambda m: valid[m][drawn].mean())
        again += best == "ties"
        judged_by.append(valid[best][out].mean())
    crossfitted = float(re.search(r"did not choose: (\d\.\d{3})", first)[1])
    assert crossfitted == pytest.approx(np.mean(judged_by), abs=0.003)
    share = int(re.match(r"- In (\d+) % of resamples", second)[1])
    assert share == pytest.approx(again / 10, abs=4)


def test_the_front_is_no_fact_and_trainings_are_not_covered(said, right):
    line = sentence(said, "- On these test texts, no candidate is both better and cheaper")
    small = max((*EXPERTS, *MERGES), key=lambda m: right["test"][m].mean())
    assert small in line and "%" in line and "resamples" in line
    assert "each was trained once, and intervals cover the choice of reviews alone" in said
    assert "all choices were made on validation" not in said and "chosen on validation" in said.replace("\n", " ")


def test_costs_are_said_as_counted_and_as_measured(judged):
    """TF-IDF's operations leave out the counting of words, and measured time differs from operations."""
    from mllm.evaluation import claim_sentences

    one, other = ({"method": m, "reviews_per_second": s} for m, s in (("ties", 50.0), ("tfidf", 500.0)))
    said = claim_sentences._cost(25_000, "flops_per_review", one, other)
    assert (
        said
        == " It needs 25,000 times the operations per review (the operations that count words are left out); measured: 10 times as slow."
    )
    assert verdict.plain("a*b") == r"a\*b"
