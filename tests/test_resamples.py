"""Test resamples of a split's texts: unchanged for a task that labels all texts, joint between tasks, and never empty."""

import numpy as np
import polars as pl
import pytest

from conftest import write_split
from mllm.data import labelled
from mllm.evaluation import resamples, scores
from mllm.prediction import prediction_tables

SEED = 17


def as_before(texts, count):
    """Return a single task's draws, text by text, as before tasks shared them."""
    rng = np.random.default_rng(SEED)
    return [np.bincount(rng.integers(0, texts, texts), minlength=texts) for _ in range(count)]


def test_a_task_that_labels_all_texts_keeps_its_draws():
    groups = np.array([7, 3, 3, 90, 41, 7, 5, 6, 8])
    own = np.unique(groups)
    assert (resamples.draw(own, groups, 50, SEED) == as_before(len(own), 50)).all()


def test_tasks_count_their_own_texts_of_the_same_draws():
    split = np.arange(100, 160)
    first, second = split[::2], split[20:]
    whole = dict(zip(split, np.transpose(as_before(60, 40)), strict=True))
    for own in (first, second):
        assert (resamples.draw(own, split, 40, SEED) == np.transpose([whole[text] for text in own])).all()


def test_no_resample_is_without_a_text_of_a_small_task():
    split, own = np.arange(500), np.array([3, 77])
    joint = np.array(as_before(500, 400))[:, own]
    found = resamples.draw(own, split, 400, SEED)
    empty = ~joint.any(axis=1)
    assert 30 < empty.sum() < 80  # e⁻² of them
    assert (found[~empty] == joint[~empty]).all()
    assert (found[empty].sum(axis=1) == 2).all() and len(np.unique(found[empty], axis=0)) == 3


@pytest.fixture
def two_tasks(tmp_path):
    """Make a task t that labels all reviews, a task u that labels two thirds, and a candidate that predicts both."""
    rng = np.random.default_rng(0)
    parts = {}
    for split, first, n in (("valid", 0, 60), ("test", 60, 90)):
        ids = np.arange(first, first + n)
        groups = first + rng.integers(0, n * 3 // 4, n)
        parts[split] = pl.DataFrame({"review_id": ids, "group": groups, "label_t": rng.integers(0, 2, n)})
    write_split(tmp_path, ["bad", "good"], **parts)
    rows = pl.concat(part.with_columns(split=pl.lit(split)) for split, part in parts.items())
    some = rows.filter(pl.col("review_id") % 3 > 0).select("review_id", label=1 - pl.col("label_t"))
    labelled.write_task(tmp_path, "u", {"names": ["bad", "good"], "label": "sentiment"}, some)
    logp = np.log(rng.dirichlet((1, 1), 150))
    prediction_tables.write_predictions(tmp_path / "m.t.parquet", rows.rename({"label_t": "label"}), logp)
    kept = rows.select("review_id", "split").join(some, on="review_id", maintain_order="left").with_row_index("place")
    prediction_tables.write_predictions(tmp_path / "m.u.parquet", kept, logp[kept["review_id"].to_numpy()])
    return tmp_path, rows, logp


@pytest.mark.parametrize("task", ["t", "u"])
def test_a_bench_scores_the_joint_draws(two_tasks, task):
    """Return the accuracy of each resample, counted text by text."""
    folder, rows, logp = two_tasks
    bench = scores.Bench(folder, {"name": task, "label": "sentiment", "column": None}, SEED)
    found = bench.score(folder / f"m.{task}.parquet")
    test = rows.filter(split="test")
    own = test.filter(pl.col("review_id") % 3 > 0) if task == "u" else test
    texts = np.unique(test["group"])
    said = logp.argmax(axis=1)
    accuracy = found.draws["test"][0, bench.metrics.index("accuracy")]
    for number, drawn in enumerate(as_before(len(texts), 25)):
        right = total = 0.0
        for text, times in zip(texts, drawn, strict=True):
            mine = own.filter(group=text)
            hits = [
                said[i] == (label if task == "t" else 1 - label)
                for i, label in mine.select("review_id", "label_t").rows()
            ]
            right += times * (np.mean(hits) if hits else 0)
            total += times * bool(hits)
        assert accuracy[number] == pytest.approx(right / total, abs=1e-6)
