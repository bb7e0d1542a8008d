"""Test the selection of the best: how often it would be repeated, and its score on data that did not select it."""

import numpy as np
import pytest

from mllm.evaluation import bootstrap, stability


def candidates(n, skills, seed):
    """Draw log-probabilities of candidates that are right with these probabilities; all find the same texts hard."""
    rng = np.random.default_rng(seed)
    truth, shared = rng.integers(0, 2, n), rng.random(n)
    luck = np.where(rng.random((len(skills), n)) < 0.5, shared, rng.random((len(skills), n)))
    label = np.where(luck < np.array(skills)[:, None], truth, 1 - truth)
    return truth, np.log(np.where(label[:, :, None] == np.arange(2), 0.8, 0.2))


def test_left_out_texts_are_those_that_no_resample_drew():
    """Compare with newly drawn masks, with copies of texts and more reviews than texts."""
    truth, logps = candidates(500, [0.7], 0)
    groups = np.unique(np.random.default_rng(1).integers(0, 300, 500), return_inverse=True)[1]
    found = bootstrap.Sample(truth, groups, 2, False, 5, 300).on_left_out(logps[0])
    rng, texts, right = np.random.default_rng(5), groups.max() + 1, logps[0].argmax(1) == truth
    weight = 1 / np.bincount(groups)[groups]
    for b in range(20):
        out = (np.bincount(rng.integers(0, texts, texts), minlength=texts) == 0)[groups]
        assert found["accuracy"][b] == pytest.approx(np.average(right[out], weights=weight[out]), abs=1e-6)
        assert found["nll"][b] == pytest.approx(np.average(-logps[0][out, truth[out]], weights=weight[out]), abs=1e-5)
    assert all(len(draws) >= bootstrap.LEFT_OUT for draws in found.values())


def test_a_handful_of_texts_leaves_no_resample_without_a_judge():
    truth, logps = candidates(3, [0.7], 0)
    found = bootstrap.Sample(truth, np.arange(3), 2, False, 5, 300).on_left_out(logps[0])
    assert np.isfinite(found["accuracy"]).all()


@pytest.mark.parametrize("skills", [(0.7,) * 8, (0.74, *(0.7,) * 7)])
def test_the_crossfitted_score_is_what_the_procedure_reaches(skills):
    """In 80 experiments the winner's own score is too good; the cross-fitted one is within its error of the selection's mean."""
    apparent, crossfitted, reached = [], [], []
    for seed in range(80):
        truth, logps = candidates(150, skills, seed)
        sample = bootstrap.Sample(truth, np.arange(150), 2, False, seed, 256)
        evaluated = sample.evaluate_all(logps)
        scores = [one.values["accuracy"] for one in evaluated]
        draws = np.stack([one.draws["accuracy"] for one in evaluated])
        left_out = np.stack([sample.on_left_out(logp)["accuracy"] for logp in logps])
        winner = int(np.argmax(scores))
        found = stability.stability(draws, left_out, True, winner)
        apparent.append(scores[winner])
        crossfitted.append(found.crossfitted)
        reached.append(skills[winner])
    truth_, error = np.mean(reached), np.std(crossfitted) / np.sqrt(80)
    assert np.mean(apparent) - truth_ > 0.015
    assert abs(np.mean(crossfitted) - truth_) < 3 * error + 0.004


def test_a_clear_winner_is_chosen_again_and_smaller_may_be_better():
    draws = np.array([[0.3, 0.3, 0.3, 0.3], [0.1, 0.5, 0.1, 0.1], [0.0, 0.1, 0.2, 0.4]])
    found = stability.stability(draws, draws[:, :2], True)
    assert (found.again, found.second, found.second_share) == (0.5, 1, 0.25)
    assert found.crossfitted == pytest.approx((0.3 + 0.5) / 2)
    assert stability.stability(-draws, -draws[:, :2], False).crossfitted == pytest.approx(-0.4)
    assert stability.stability(draws[:1], draws[:1], True).again == 1.0


def test_what_ties_shares_the_choice():
    """Two candidates tie as the best in half of the resamples, and the winner is alone in the other half."""
    draws = np.array([[0.5, 0.5, 0.6, 0.6], [0.5, 0.5, 0.1, 0.1], [0.1, 0.1, 0.1, 0.1]])
    left_out = np.array([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0], [9.0, 9.0, 9.0, 9.0]])
    found = stability.stability(draws, left_out, True)
    assert (found.again, found.second, found.second_share, found.crossfitted) == (0.75, 1, 0.25, 0.75)
