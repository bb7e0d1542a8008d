"""How sure a choice is: chosen again on other reviews, and scored by reviews that did not choose."""

from dataclasses import dataclass

import numpy as np

from mllm.core.arrays import Array


@dataclass(frozen=True)
class Stability:
    """Of the best of several candidates."""

    again: float
    """Share of resamples in which the winner is the best again; of k that are equally good, each counts 1/k."""
    second: int
    """Index of the candidate that is the best most often among the others."""
    second_share: float
    crossfitted: float
    """Mean score of each resample's best on the texts that the resample left out."""


def stability(draws: Array, left_out: Array, larger_is_better: bool, winner: int = 0) -> Stability:
    """Choose again on each bootstrap resample; judge each choice by the texts that were not drawn.

    The mean over left-out texts is free of the luck of choosing, whatever differences there are between the candidates
    ("bootstrap bias corrected", Tsamardinos, Greasidou and Borboudakis 2018, Machine Learning 107).

    Args:
        draws: (candidates, resamples) of the metric on which is chosen.
        left_out: (candidates, first resamples) of the metric on the texts that each leaves out.
        larger_is_better: what is chosen.
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
