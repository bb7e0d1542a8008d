"""Measure how stable a choice is: repeat it on other reviews, and score it by reviews that did not choose."""

from dataclasses import dataclass

import numpy as np

from mllm.core.arrays import Array


@dataclass(frozen=True)
class Stability:
    """Hold the stability of the choice of the best of several candidates."""

    again: float
    """Share of resamples in which the winner is the best again; each of k equally good candidates counts 1/k."""
    second: int
    """Index of the other candidate that is the best most often."""
    second_share: float
    crossfitted: float
    """Mean score of each resample's best on the texts that the resample left out."""


def stability(draws: Array, left_out: Array, larger_is_better: bool, winner: int = 0) -> Stability:
    """Choose again on each bootstrap resample, and score each choice on the texts that were not drawn.

    The mean over left-out texts is free of the choice's optimism, whatever differences there are between the candidates
    ("bootstrap bias corrected", Tsamardinos, Greasidou and Borboudakis 2018, Machine Learning 107).

    Args:
        draws: (candidates, resamples) of the metric that chooses.
        left_out: (candidates, first resamples) of the metric on the texts that each resample leaves out.
        larger_is_better: whether the largest value is chosen.
        winner: index of the candidate that was chosen on all texts.
    """
    signed = draws if larger_is_better else -draws
    best = signed == signed.max(axis=0)
    part = best / best.sum(axis=0)
    shares = part.mean(axis=1)
    others = np.where(np.arange(len(draws)) == winner, -1.0, shares)
    second = int(others.argmax())
    judged = (left_out * part[:, : left_out.shape[1]]).sum(axis=0)
    return Stability(float(shares[winner]), second, float(max(0.0, others[second])), float(judged.mean()))
