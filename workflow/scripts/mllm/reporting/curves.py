"""Draw small charts, one for each model: confidence against accuracy, and the loss during training."""

from typing import Any

import altair as alt
import polars as pl

from mllm.evaluation.intervals import wilson
from mllm.evaluation.score_files import Scores
from mllm.models.cards import Card, FineTuned
from mllm.reporting.colours import INK, KINDS, SOFT

WIDTH, HEIGHT = 260, 190
LEVELS = 6  # of confidence: few enough that each has an interval worth drawing
MANY = 12  # trainings on the page


def calibration(scores: Scores) -> Any:
    """Draw how often predictions of some confidence are right on test: raw (grey), and calibrated on validation (coloured)."""
    texts = scores.counts["test"]["texts"]
    rows: list[dict[str, Any]] = [
        {"candidate": scores.candidate, "how": how, "confidence": confidence, "accuracy": accuracy, "low": low, "high": high, "texts": count}
        for how in ("raw", "calibrated")
        for confidence, accuracy, count, low, high in levels(scores.reliability[how], texts)
    ]  # fmt: skip
    colours = alt.Scale(domain=["raw", "calibrated"], range=[SOFT, KINDS[scores.kind]])
    percent = alt.Axis(format=".0%", tickCount=5)
    start = min(0.9, min(r["confidence"] for r in rows) - 0.03)
    x = alt.X("confidence:Q", title="confidence", axis=percent, scale=alt.Scale(domain=[start, 1.0], nice=False))  # fmt: skip
    y = alt.Y("low:Q", title="right", axis=percent, scale=alt.Scale(domain=[0, 1]))
    base = alt.Chart(_data(rows), width=WIDTH, height=HEIGHT).encode(
        x=x, color=alt.Color("how:N", scale=colours, legend=None)
    )
    ends = [{"at": start}, {"at": 1.0}]
    ideal = alt.Chart(_data(ends)).mark_line(color=INK, strokeDash=[4, 3], strokeWidth=1).encode(x="at:Q", y="at:Q")
    return (
        ideal
        + base.mark_rule(opacity=0.6).encode(y=y, y2="high:Q")
        + base.mark_circle(size=45, opacity=1).encode(y="accuracy:Q")
    )


def levels(reliability: list[list[float]], texts: int) -> list[tuple[float, float, int, float, float]]:
    """Return (confidence, accuracy, texts, low, high) of at most LEVELS levels of confidence, made of neighbouring fine levels.

    Args:
        reliability: (weight, confidence, accuracy) of each fine level, from low to high confidence.
        texts: number of texts.
    """
    whole, found = sum(weight for weight, _, _ in reliability), []
    taken: list[tuple[float, float, float]] = []
    for i, (weight, confidence, accuracy) in enumerate(reliability):
        taken.append((weight, confidence, accuracy))
        held = sum(w for w, _, _ in taken)
        if held >= whole / LEVELS - 1e-9 or i == len(reliability) - 1:
            mean, right = (sum(t[0] * t[k] for t in taken) / held for k in (1, 2))
            count = max(1, round(held / whole * texts))
            low, high = wilson(right, count)
            found.append((mean, right, count, low, high))
            taken = []
    return found


def training(card: Card, ends: tuple[float, float]) -> Any:
    """Draw the loss on training batches (line), and on validation after each epoch (diamonds).

    Args:
        card: of a trained model.
        ends: of the axis, equal for all models.
    """
    rows = [{"step": p["step"], "loss": p["loss"], "on": on} for on, curve in _curves(card) for p in curve]
    base = alt.Chart(width=WIDTH, height=HEIGHT).encode(
        x=alt.X("step:Q", title="optimiser step", axis=alt.Axis(tickCount=5)),
        y=alt.Y("loss:Q", scale=alt.Scale(domain=list(ends), zero=False)),
    )
    color = KINDS["expert"]
    lines = base.mark_line(color=color, opacity=0.7, strokeWidth=1.5).properties(
        data=_data([r for r in rows if r["on"] == "train"])
    )
    points = base.mark_point(filled=True, size=60, shape="diamond", color=color, opacity=1)
    return lines + points.properties(data=_data([r for r in rows if r["on"] == "validation"]))


def trainings(cards: dict[str, Card]) -> dict[str, Any]:
    """Return model -> its drawing, for the first MANY trained models."""
    trained = {n: c for n, c in list(cards.items()) if any(curve for _, curve in _curves(c))}
    trained = dict(list(trained.items())[:MANY])
    losses = [p["loss"] for card in trained.values() for _, curve in _curves(card) for p in curve]
    if not losses:
        return {}
    room = 0.05 * (max(losses) - min(losses)) or 0.1
    return {name: training(card, (min(losses) - room, max(losses) + room)) for name, card in trained.items()}


def _curves(card: Card) -> list[tuple[str, list[dict[str, float]]]]:
    return [("train", card.loss), ("validation", card.validation)] if isinstance(card, FineTuned) else []


def _data(rows: list[dict[str, Any]]) -> Any:
    return alt.Data(values=pl.DataFrame(rows, infer_schema_length=None).to_dicts() if rows else [])
