"""Scores against scikit-learn, intervals against simulation."""

import numpy as np
import polars as pl
import pytest
from sklearn import metrics as sk

from conftest import REAL, run_script
from mllm import comparison, leaderboard, scoring, slices
from mllm.cli import read_json, write_json


def problem(n=400, classes=5, seed=0, skill=0.5):
    rng = np.random.default_rng(seed)
    truth = rng.choice(classes, n, p=np.arange(1, classes + 1) / sum(range(1, classes + 1)))
    logits = rng.normal(size=(n, classes)) + skill * 3 * np.eye(classes)[truth]
    return truth, logits - np.logaddexp.reduce(logits, axis=1)[:, None]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_values_are_scikit_learns(seed, classes):
    truth, logp = problem(classes=classes, seed=seed, skill=seed / 5)
    predicted = logp.argmax(1)
    for ordered in (True, False):
        found = scoring.score(truth, logp, np.arange(len(truth)), ordered, 1, 10)
        expected = {
            "accuracy": sk.accuracy_score(truth, predicted),
            "balanced_accuracy": sk.balanced_accuracy_score(truth, predicted),
            "macro_f1": sk.f1_score(truth, predicted, average="macro"),
            "kappa": sk.cohen_kappa_score(truth, predicted, weights="quadratic" if ordered else None),
            "nll": sk.log_loss(truth, np.exp(logp), labels=range(classes)),
        }
        assert {k: v["value"] for k, v in found.items()} == pytest.approx(expected, abs=1e-12)


@pytest.mark.filterwarnings("ignore:y_pred contains classes")
def test_classes_that_never_occur(seed=3):
    truth, logp = problem(classes=4, seed=seed)
    truth[truth == 2] = 1
    logp[:, 3] = -50.0
    logp -= np.logaddexp.reduce(logp, axis=1)[:, None]
    found = scoring.score(truth, logp, np.arange(len(truth)), False, 1, 10)
    assert found["balanced_accuracy"]["value"] == pytest.approx(sk.balanced_accuracy_score(truth, logp.argmax(1)))
    assert found["macro_f1"]["value"] == pytest.approx(sk.f1_score(truth, logp.argmax(1), average="macro"))


def test_one_label_everywhere_has_no_kappa():
    truth = np.zeros(20, dtype=int)
    logp = np.log(np.tile([0.9, 0.1], (20, 1)))
    assert scoring.score(truth, logp, np.arange(20), False, 1, 10)["kappa"]["value"] == 0


def test_the_same_seed_gives_the_same_numbers_and_chunks_do_not_matter(monkeypatch):
    truth, logp = problem()
    first = scoring.score(truth, logp, np.arange(400), True, 7)
    assert scoring.score(truth, logp, np.arange(400), True, 7) == first
    assert scoring.score(truth, logp, np.arange(400), True, 8) != first
    monkeypatch.setattr(scoring, "CHUNK", 13)
    assert scoring.score(truth, logp, np.arange(400), True, 7)["accuracy"] == pytest.approx(first["accuracy"])


def test_copies_of_a_text_are_no_new_evidence():
    truth, logp = problem()
    once = scoring.score(truth, logp, np.arange(400), True, 1)["accuracy"]
    truth3, logp3 = np.repeat(truth, 3), np.repeat(logp, 3, axis=0)
    grouped = scoring.score(truth3, logp3, np.repeat(np.arange(400), 3), True, 1)["accuracy"]
    naive = scoring.score(truth3, logp3, np.arange(1200), True, 1)["accuracy"]
    assert grouped == pytest.approx(once)
    width = lambda s: s["high"] - s["low"]  # noqa: E731
    assert width(naive) == pytest.approx(width(once) / np.sqrt(3), rel=0.15)


def test_a_text_counts_once_in_every_metric():
    """As scikit-learn's sample_weight, one over the number of reviews with the text."""
    rng = np.random.default_rng(4)
    truth, logp = problem(classes=3)
    times = rng.integers(1, 6, len(truth))
    truth, logp, groups = np.repeat(truth, times), np.repeat(logp, times, axis=0), np.repeat(np.arange(400), times)
    # Reviews of one text may differ in rating and prediction.
    logp = logp + rng.normal(scale=0.5, size=logp.shape)
    logp -= np.logaddexp.reduce(logp, axis=1)[:, None]
    weight, predicted = 1 / np.repeat(times, times), logp.argmax(1)
    expected = {
        "accuracy": sk.accuracy_score(truth, predicted, sample_weight=weight),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, predicted, sample_weight=weight),
        "macro_f1": sk.f1_score(truth, predicted, average="macro", sample_weight=weight),
        "kappa": sk.cohen_kappa_score(truth, predicted, weights="quadratic", sample_weight=weight),
        "nll": sk.log_loss(truth, np.exp(logp), sample_weight=weight),
    }
    order = rng.permutation(len(truth))
    found = scoring.score(truth[order], logp[order], groups[order], True, 1, 10)
    assert {k: v["value"] for k, v in found.items()} == pytest.approx(expected, abs=1e-12)


def test_parts_are_scored_as_if_alone():
    """The same values as of a part's own reviews, and intervals as wide as theirs; the whole is a part like others."""
    rng = np.random.default_rng(2)
    truth, logp = problem(n=600, classes=3)
    groups = rng.integers(0, 500, 600)
    half = rng.random(600) < 0.5  # cuts through texts: each counts once in the part, too
    whole, part = scoring.resample_parts(truth, logp, groups, [np.ones(600, dtype=bool), half], True, 5, 2000)
    alone = scoring.resample(truth[half], logp[half], groups[half], True, 6, 2000)
    for name, metric in part.items():
        assert metric.value == pytest.approx(alone[name].value, abs=1e-12)
        assert np.subtract(*metric.interval()) == pytest.approx(np.subtract(*alone[name].interval()), rel=0.15)
    everything = scoring.resample(truth, logp, groups, True, 5, 2000)
    assert all(np.array_equal(whole[name].draws, everything[name].draws) for name in whole)


def test_slices_have_fifty_texts_and_are_never_of_the_answer():
    rows = 1000
    frame = pl.DataFrame({
        "review_id": range(rows), "group": [i // 2 for i in range(rows)], "rating": [i % 10 + 1 for i in range(rows)],
        "label_t": [i % 2 for i in range(rows)], "words": [i % 200 for i in range(rows)],
        "condition": ["Pain" if i < 700 else "Acne" if i < 950 else "Gout" if i < 990 else None for i in range(rows)],
        "year": [2008 + i % 3 for i in range(rows)], "exclamations": [0] * 900 + list(range(100)),
    })  # fmt: skip
    found = slices.slices(frame.with_columns(count=pl.lit("all")), "sentiment")
    assert [key for key in found if key[0] == "condition"] == [("condition", "Acne"), ("condition", "Pain")]
    assert [name for column, name in found if column == "year"] == ["2008", "2009", "2010"]
    assert {column for column, _ in found} == {"condition", "year", "words", "exclamations", "count"}
    quarters = [mask for (column, _), mask in found.items() if column == "words"]
    assert len(quarters) == 4 and sum(mask.sum() for mask in quarters) == rows
    of_conditions = {column for column, _ in slices.slices(frame, "condition")}
    assert "rating" in of_conditions and "condition" not in of_conditions
    assert found["words", "≤ 49.75"].to_list() == (frame["words"] < 50).to_list()


def test_intervals_cover_the_truth_as_often_as_they_say():
    """500 samples of texts of one to three rows each; accuracy's true value is 0.7."""
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(500):
        sizes = rng.integers(1, 4, 150)
        right = np.repeat(rng.random(150) < 0.7, sizes)
        groups = np.repeat(np.arange(150), sizes)
        truth = np.zeros(len(right), dtype=int)
        logp = np.log(np.where(right[:, None], [0.9, 0.1], [0.1, 0.9]))
        found = scoring.score(truth, logp, groups, False, int(rng.integers(2**31)), 400)["accuracy"]
        covered += found["low"] <= 0.7 <= found["high"]
    assert 0.93 <= covered / 500 <= 0.97


def test_the_seed_experiments_accuracies_to_all_digits():
    """Ten real prediction tables, whose accuracies their authors report."""
    folder = REAL / "mllm-2024"
    if not folder.exists():
        pytest.skip(f"no tables at {folder}")
    reported = {"expert_0": 0.471310332000372, "ties": 0.48488793824979076, "gpt2_xl": 0.4630335720264112}
    for name, accuracy in reported.items():
        table = pl.read_parquet(folder / f"{name}.parquet")
        truth = table["true_label"].to_numpy()
        logp = np.log(table.select([str(i) for i in range(10)]).to_numpy())
        found = scoring.score(truth, logp, np.arange(len(truth)), True, 1, 50)["accuracy"]
        assert found["value"] == accuracy
        assert found["low"] < accuracy < found["high"]


def tables(tmp_path, **changes):
    n = 60
    truth = np.arange(n) % 3
    reviews = pl.DataFrame({"review_id": range(n), "group": range(n), "label_t": truth})
    logp = np.log(np.full((n, 3), 0.2) + 0.4 * np.eye(3)[truth]).astype(np.float32)
    columns = {f"logp_{k}": logp[:, k] for k in range(3)}
    frame = pl.DataFrame({"review_id": range(n), "label": truth, **columns})
    predictions = pl.concat([frame.with_columns(split=pl.lit(s)) for s in ("valid", "test")])
    for split in ("valid", "test"):
        reviews.write_parquet(tmp_path / f"{split}.parquet")
    write_json(
        tmp_path / "split.json", {"tasks": {"t": {"names": ["a", "b", "c"], "ordered": False, "label": "sentiment"}}}
    )
    changes.get("damage", lambda p: p)(predictions).write_parquet(tmp_path / "p.parquet")
    candidate = '{"candidate": "x", "kind": "expert", "method": "", "task": "t", "members": [], "parameters": {}}'
    return [
        "--candidate",
        candidate,
        "--predictions",
        tmp_path / "p.parquet",
        "--data",
        tmp_path,
        "--seed",
        1,
        "--output",
        tmp_path / "s.json",
    ]


def test_the_script_scores(tmp_path):
    run_script("score", *tables(tmp_path))
    found = read_json(tmp_path / "s.json")
    assert found["candidate"] == "x"
    assert found["scores"]["test"]["accuracy"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert found["scores"]["valid"]["nll"]["value"] == pytest.approx(-np.log(0.6), abs=1e-6)
    assert found["counts"]["test"] == {"reviews": 60, "texts": 60}


DAMAGES = [
    (lambda p: p.head(100), "test: 40 predictions for 60 reviews, the first missing is 40; run predict again"),
    (lambda p: pl.concat([p, p.head(1)]), "valid: review 0 is predicted twice"),
    (lambda p: p.with_columns(label=(pl.col("label") + 1) % 3), "valid: review 0 has label 1, in data/ it is 0"),
    (lambda p: p.drop("logp_2"), "columns logp_0, logp_1; expected logp_0, logp_1, logp_2"),
    (lambda p: p.with_columns(logp_0=pl.lit(0.5)), "review 0: the probabilities sum to"),
    (lambda p: p.with_columns(logp_0=pl.lit(float("nan"))), "review 0: the probabilities sum to nan, not 1"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES, ids=range(len(DAMAGES)))
def test_bad_predictions_are_one_clear_error(tmp_path, damage, message):
    arguments = tables(tmp_path, damage=damage)
    (tmp_path / "s.json").write_text("before")
    printed = run_script("score", *arguments, ok=False)
    assert printed.startswith(f"error: {tmp_path}/p.parquet: ")
    assert message in printed
    assert (tmp_path / "s.json").read_text() == "before"


def score_file(name, kind, value, **more):
    flat = {m: {"value": value, "low": value - 0.1, "high": value + 0.1} for m in leaderboard.METRICS}
    return {
        "candidate": name, "kind": kind, "method": more.pop("method", ""), "task": "t", "members": [],
        "parameters": more, "scores": {"valid": flat, "test": flat}, "cost": {"n_parameters": 1000, "device": "cpu"},
    }  # fmt: skip


def test_leaderboard_columns_order_and_winners():
    files = [
        score_file("base", "base", 0.1),
        score_file("m1", "merge", 0.5, method="ties", density=0.5),
        score_file("m2", "merge", 0.6, method="ties", density=0.9),
        score_file("m3", "merge", 0.4, method="linear", weight={"a": 1.0}),
        score_file("e", "expert", 0.7),
    ]
    frame = leaderboard.table(files, "macro_f1")
    assert frame["candidate"].to_list() == ["e", "m2", "m1", "m3", "base"]
    assert frame.columns[:4] == ["candidate", "kind", "method", "task"]
    assert {"density", "weight", "valid_accuracy", "test_accuracy", "test_kappa_low", "test_kappa_high"} <= set(
        frame.columns
    )
    assert frame.filter(pl.col("winner"))["candidate"].to_list() == ["m2", "m3"]
    by_loss = leaderboard.table(files, "nll")
    assert by_loss["candidate"].to_list() == ["base", "m3", "m1", "m2", "e"]
    assert set(by_loss.filter(pl.col("winner"))["candidate"]) == {"m1", "m3"}
    assert "m2" in leaderboard.text(frame, "macro_f1", "title")


def test_tasks_have_winners_rivals_and_tables_of_their_own():
    files = [
        {**score_file(f"{kind}-{task}", kind, value, method="ties" if kind == "merge" else ""), "task": task}
        for task, value in (("mood", 0.3), ("ill", 0.8))
        for kind in ("expert", "merge", "reference")
    ]
    frame = leaderboard.table(files, "macro_f1")
    assert frame.filter(pl.col("winner"))["candidate"].to_list() == ["merge-mood", "merge-ill"]
    assert frame["task"].to_list() == ["mood"] * 3 + ["ill"] * 3
    pairs = [(a["candidate"], b["candidate"]) for a, b in comparison.rivals(frame)]
    assert pairs == [(f"merge-{t}", f"{k}-{t}") for t in ("mood", "ill") for k in ("expert", "reference")]
    text = leaderboard.text(frame, "macro_f1", "both")
    assert "both: 3 candidates, task mood" in text and "both: 3 candidates, task ill" in text


def test_the_leak_is_said_beside_the_scores():
    facts = {"mode": "official", "test_rows": 53766, "test_rows_also_in_train": 32216}
    assert leaderboard.leak_line(facts).startswith("WARNING: 32,216 of 53,766 test reviews (59.9%)")
    clean = leaderboard.leak_line({**facts, "mode": "official-clean"})
    assert clean.startswith("32,216 of 53,766") and "left out" in clean
    assert leaderboard.leak_line({**facts, "mode": "random"}) == ""


def test_an_experiment_without_merges(tmp_path):
    frame = leaderboard.table([score_file("base", "base", 0.1), score_file("e", "expert", 0.7)], "macro_f1")
    assert not frame["winner"].any()
    compared = comparison.compare(frame, tmp_path, "macro_f1", 0.01, 1)
    assert compared.height == 0
    assert comparison.words(compared, 0.01) == ""


def test_a_winner_is_chosen_on_validation_alone():
    good_on_test, good_on_valid = (
        score_file("a", "merge", 0.9, method="ties"),
        score_file("b", "merge", 0.5, method="ties"),
    )
    good_on_test["scores"]["valid"] = score_file("", "", 0.1)["scores"]["valid"]
    frame = leaderboard.table([good_on_test, good_on_valid], "accuracy")
    assert frame.filter(pl.col("winner"))["candidate"].to_list() == ["b"]
    assert frame["candidate"].to_list() == ["b", "a"]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.01, 0.02, "better"), (-0.005, 0.02, "no worse"), (-0.02, 0.02, "undecided"), (-0.05, -0.02, "worse"),
     (-0.02, -0.005, "undecided"), (-0.009, -0.001, "no worse")],
)  # fmt: skip
def test_verdicts(low, high, expected):
    assert comparison.verdict(low, high, 0.01) == expected


def test_paired_differences_cover_the_truth():
    """300 samples; two classifiers of accuracy .7 and .75 that are right on mostly the same reviews."""
    rng = np.random.default_rng(9)
    covered = 0
    for _ in range(300):
        draw = rng.random(300)
        truth, groups = np.zeros(300, dtype=int), np.arange(300)
        found = []
        for accuracy in (0.7, 0.75):
            logp = np.log(np.where(draw[:, None] < accuracy, [0.9, 0.1], [0.1, 0.9]))
            found.append(scoring.resample(truth, logp, groups, False, 3, 400)["accuracy"])
        low, high = scoring.Resampled(found[1].value - found[0].value, found[1].draws - found[0].draws).interval()
        covered += low <= 0.05 <= high
        assert high - low < 0.08  # two intervals apart would make 0.14
    assert 0.92 <= covered / 300 <= 0.98
