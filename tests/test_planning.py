"""Compare planned power and numbers of texts with statsmodels and simulated experiments."""

import json

import numpy as np
import pytest
from scipy.stats import nct
from scipy.stats import t as student
from statsmodels.stats.power import normal_power, normal_sample_size_one_tail

from conftest import run_script
from mllm.evaluation import intervals, planning, planning_replicates
from mllm.experiment import grid, load
from test_config import DEMO


@pytest.mark.parametrize(
    ("texts", "share", "claims", "lead"), [(1042, 0.1, 1, 0.0), (20_000, 0.3, 12, 0.0), (3000, 0.2, 1, 0.005)]
)
def test_power_is_statsmodels(texts, share, claims, lead):
    noise = planning.assumed(share)
    level = planning.LEVEL / claims
    expected = normal_power(0.01 + lead, texts, level, alternative="larger", sigma=share**0.5)
    assert planning.power(noise, texts, 0.01, lead, claims) == pytest.approx(expected, abs=1e-9)
    needed = normal_sample_size_one_tail(0.01 + lead, 0.8, level, std_null=share**0.5)
    assert planning.texts_needed(noise, 0.01, lead, claims) == int(np.ceil(needed))
    assert planning.power(noise, needed, 0.01, lead, claims) == pytest.approx(0.8)
    assert planning.power(noise, texts, planning.margin_shown(noise, texts)) == pytest.approx(0.8)


def test_power_is_what_claims_of_accuracy_reach():
    """Simulate 4,000 experiments on 1,500 texts; on 12 % of them exactly one of two equally good candidates is right."""
    rng, texts = np.random.default_rng(0), 1500
    differing = rng.binomial(texts, 0.12, 4000)
    ahead = rng.binomial(differing, 0.5)
    shown = [intervals.tango_p(a, d - a, texts, -0.02) <= planning.LEVEL for a, d in zip(ahead, differing, strict=True)]
    assert np.mean(shown) == pytest.approx(planning.power(planning.assumed(0.12), texts, 0.02), abs=0.025)


def test_no_margin_is_never_shown():
    with pytest.raises(ValueError, match="expected more than 0"):
        planning.texts_needed(planning.assumed(), 0.0)


@pytest.mark.parametrize("number", [2, 10, 100])
def test_optimism_is_the_expected_largest(number):
    """Compare with simulated candidates with independent luck."""
    noise, texts = planning.assumed(0.2), 400
    luck = np.random.default_rng(number).normal(0, (0.2 / 2 / texts) ** 0.5, (20_000, number)).max(1).mean()
    assert planning.optimism(noise, texts, number) == pytest.approx(luck, rel=0.05)
    assert planning.optimism(noise, texts, 1) == 0.0


@pytest.mark.parametrize("number", [2, 3, 10])
def test_power_with_replicates(number):
    """Without noise of texts the power is a t-test's, by its noncentral distribution; without spread, that of texts."""
    assert planning_replicates.power(1, 0.01, 0.01, 0.02) is None
    by_spread = planning_replicates.power(number, 0.01, 1e-9, 0.02)
    expected = nct.sf(student.ppf(0.975, number - 1), number - 1, 0.02 / (0.01 / np.sqrt(number)))
    assert by_spread == pytest.approx(expected, abs=0.03)  # three standard errors of 2,000 draws
    by_texts = planning_replicates.power(number, 0.0, 0.008, 0.02)
    assert by_texts == pytest.approx(planning.power(planning.Noise(0.008, ""), 1, 0.02), abs=0.03)


def test_a_pilots_claims_say_how_much_texts_vary(tmp_path):
    """A difference of 0.0269 is found in 80 % on 1,042 texts: the power for 0.01 is 18 %."""
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores/m.json").write_text(
        json.dumps({"task": "t", "counts": {"test": {"texts": 1042, "reviews": 1109}}})
    )
    rows = ["task,claim,detectable,metric", "t,true,0.0269,macro_f1", "t,false,9,macro_f1", "u,true,9,macro_f1"]
    (tmp_path / "comparisons.csv").write_text("\n".join(rows))
    noise = planning.pilot(tmp_path, "t")
    assert noise.deviation == pytest.approx(0.0269 / 2.8016 * 1042**0.5, rel=1e-4)
    line = planning.line(noise, 1042, 0.01)
    assert line.startswith(
        "Planning: with 1,042 test texts a margin of 0.01 is shown with a power of 18 % (from 1 claim of"
    )
    assert planning.pilot(tmp_path, "v") is None and planning.pilot(tmp_path / "none", "t") is None


def test_the_plan_of_an_experiment_that_was_never_run(tmp_path):
    said = run_script("plan", "--experiment", "config/demo.yaml", "--results", tmp_path / "none", "--reviews", 6000)
    built = grid.build(load.parse(DEMO))
    merges = sum(c.kind == "merge" for c in built.candidates.values())
    number = planning.claims_of(built.candidates.values(), DEMO["tasks"][0]["name"])
    assert number > 1 and f"1 primary and {number} other claims, {merges} merges" in said
    assert "Assuming that only one of two is right on 20 % of the texts" in said
    assert f"80 % need {planning.texts_needed(planning.assumed(0.2), 0.01):,} texts alone" in said
    assert "replicates" in said and "→ 1,500" in said
    failed = run_script(
        "plan", "--experiment", "config/demo.yaml", "--results", tmp_path, "--pilot", tmp_path, ok=False
    )
    assert "no claims of task" in failed
