"""Compare tests over several data sets or tasks with the libraries that have them (baycomp 1.0.3, scikit-posthocs 0.17.1)."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from scipy.stats import friedmanchisquare

from mllm.evaluation import across, over_units
from mllm.reporting import paper_files, rank_chart

GAINS = [0.081, -0.057, 0.033, 0.003, 0.006, 0.014, -0.041, 0.013, -0.006, 0.12, 0.027, 0.009]
SCORES = [
    [0.492, 0.5, 0.508, 0.488], [0.514, 0.513, 0.569, 0.494], [0.501, 0.566, 0.556, 0.485], [0.495, 0.536, 0.598, 0.492],
    [0.493, 0.55, 0.513, 0.491], [0.526, 0.537, 0.543, 0.52], [0.415, 0.551, 0.511, 0.45], [0.508, 0.541, 0.527, 0.468],
    [0.501, 0.518, 0.582, 0.522], [0.506, 0.553, 0.534, 0.472],
]  # fmt: skip


@pytest.mark.parametrize(
    ("gains", "expected"), [(GAINS, (0.8055, 0.0927, 0.1018)), ([0.012, 0.03, -0.004, 0.022], (0.7337, 0.2663, 0.0))]
)
def test_signed_rank_is_baycomps(gains, expected):
    """The library had 200,000 draws: SignedRankTest.probs(gains, 0, rope=0.01, nsamples=200000, random_state=1)."""
    found = across.signed_rank(np.array(gains), 0.01)
    assert (found.better, found.equivalent, found.worse) == pytest.approx(expected, abs=0.006)
    other = across.signed_rank(-np.array(gains), 0.01)
    assert (other.worse, other.equivalent, other.better) == pytest.approx(expected, abs=0.006)


def test_equal_methods_are_equivalent():
    small = across.signed_rank(np.array([0.001, -0.002, 0.003, 0.0, -0.001]), 0.01)
    assert small.equivalent == 1.0


def test_nemenyi_is_scikit_posthocs():
    """The library's p-values of the pairs are .0725, .0286, .7263, .9857, .0030, .0008.

    They are below 5 % exactly for pairs whose ranks are farther apart than the critical difference.
    """
    found = across.ranks(np.array(SCORES))
    assert found.p == pytest.approx(friedmanchisquare(*np.array(SCORES).T).pvalue)
    p = {(0, 1): 0.072451, (0, 2): 0.028563, (0, 3): 0.726349, (1, 2): 0.985723, (1, 3): 0.002989, (2, 3): 0.000799}
    for (i, j), value in p.items():
        assert (abs(found.mean[i] - found.mean[j]) > found.distance) == (value < 0.05)
    # Demsar 2006, table 5: the studentized range over the root of 2 is 2.343, 2.569, 2.728 for 3, 4, 5 methods.
    for methods, quantile in ((3, 2.343), (4, 2.569), (5, 2.728)):
        values = np.random.default_rng(0).random((14, methods))
        assert across.ranks(values).distance == pytest.approx(
            quantile * np.sqrt(methods * (methods + 1) / (6 * 14)), abs=1e-3
        )


def test_groups_are_the_largest_within_the_distance():
    assert across.groups(np.array([1.0, 3.0, 1.5, 3.2]), 1.0) == [(0, 1), (2, 3)]
    assert across.groups(np.array([1.0, 2.0, 3.0]), 1.0) == [(0, 1), (1, 2)]
    assert across.groups(np.array([1.0, 2.0, 3.0]), 5.0) == [(0, 2)]
    assert across.groups(np.array([1.0, 4.0]), 1.0) == []


def board(units=4):
    """Make leaderboards of several units: ties beats linear by 0.05 and equals the expert; some units lack a reference."""
    rng, rows = np.random.default_rng(0), []
    for u in range(units):
        level = rng.random() * 0.3
        of = {"ties-1": ("merge", "ties", 0.5), "ties-2": ("merge", "ties", 0.9), "linear": ("merge", "linear", 0.45),
              "e1": ("expert", "", 0.502), "e2": ("expert", "", 0.2), "big": ("reference", "", 0.6)}  # fmt: skip
        rows += [
            {"unit": f"u{u}", "candidate": name, "kind": kind, "method": method, "test_accuracy": value + level}
            for name, (kind, method, value) in of.items()
            if name != "big" or u < units - 1
        ]
    return pl.DataFrame(rows)


def test_winners_of_each_method_meet_on_the_units_that_have_both(tmp_path):
    table = over_units.compare(board(), "accuracy", 0.01)
    assert table.columns == list(over_units.UNITS)
    row = {(r["first"], r["second"]): r for r in table.to_dicts()}
    assert set(row) == {
        ("ties", "linear"),
        ("ties", "best expert"),
        ("ties", "big"),
        ("linear", "best expert"),
        ("linear", "big"),
    }
    assert row["ties", "linear"]["mean_difference"] == pytest.approx(0.05) and row["ties", "linear"]["better"] > 0.9
    assert row["ties", "best expert"]["equivalent"] == 1.0
    assert row["ties", "big"]["units"] == 3 and row["ties", "big"]["worse"] > 0.8
    names, ranks, number = over_units.ranked(board(), "accuracy")
    assert (names, number) == (["ties", "linear", "best expert"], 4) and ranks.mean.tolist() == [2.0, 3.0, 1.0]
    assert over_units.ranked(board(1), "accuracy") is None
    for distance in (ranks.distance, 0.1):  # with groups, and without
        paper_files.write_chart(
            rank_chart.diagram(names, replace(ranks, distance=distance)).to_dict(), tmp_path / "ranks"
        )
        assert all(name in (tmp_path / "ranks.svg").read_text() for name in names)
