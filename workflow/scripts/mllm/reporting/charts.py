"""The report's charts, from tables alone; each says in its title what is drawn."""

from typing import Any

import altair as alt
import polars as pl

from mllm.evaluation import leaderboard
from mllm.evaluation.metrics import METRICS
from mllm.evaluation.score_files import Scores
from mllm.models.cards import Card, FineTuned

KINDS = {"merge": "#b0432c", "expert": "#2a6f97", "base": "#6b7280", "blend": "#6d597a", "reference": "#3f7d58"}
VERDICTS = {"better": "#3f7d58", "no worse": "#81b29a", "undecided": "#6b7280", "behind": "#d08770", "worse": "#b0432c"}
WIDE: Any = "container"
MANY = 40  # rows or columns of one chart at most
FEW = 8  # columns of cells that have room for a number each, on a phone too


def pareto(board: pl.DataFrame, metric: str, cost: str) -> Any:
    """Quality on test against cost, with intervals; what nothing beats in both is joined by a line."""
    columns = ["candidate", "kind", "pareto", cost]
    table = board.select(*columns, value=f"test_{metric}", low=f"test_{metric}_low", high=f"test_{metric}_high")
    # Merges first, drawn below the few others, which stand at the same cost.
    table = table.filter(pl.col(cost) > 0).sort(pl.col("kind") != "merge", maintain_order=True)
    base = alt.Chart(_data(table), width=WIDE, height=320).encode(
        x=alt.X(f"{cost}:Q", scale=alt.Scale(type="log"), title=cost.replace("_", " "), axis=alt.Axis(format="~s")),
        color=_of_kind(),
        tooltip=["candidate:N", "kind:N", _number("value"), _number("low"), _number("high"), alt.Tooltip(f"{cost}:Q", format=".3s")],
    )  # fmt: skip
    y = alt.Y("value:Q", title=f"{METRICS[metric].label} on test", scale=alt.Scale(zero=False))
    front = alt.Chart(_data(table.filter(pl.col("pareto")).sort(cost, "value"))).mark_line(
        color="#9ca3af", strokeDash=[4, 3], interpolate="step-after"
    )
    front = front.encode(x=f"{cost}:Q", y="value:Q", order=f"{cost}:Q")
    return (
        front
        + base.mark_rule(opacity=0.35).encode(y=alt.Y("low:Q"), y2="high:Q")
        + base.mark_circle(size=70, opacity=0.9).encode(y=y)
    )


def forest(claims: pl.DataFrame, margin: float) -> Any:
    """Differences of each method's winner (claims with ``method``) to one rival, with intervals, beside 0 and the margin."""
    columns = ["method", "candidate", "against", "difference", "low", "high", "p_holm", "tuned_difference"]
    undecided = (
        pl.col("holds") == "undecided"
    )  # the colour says what holds; hollow: only taken alone, before correction
    verdict = pl.when(undecided).then("verdict").otherwise("holds")
    table = claims.head(MANY).select(*columns, verdict=verdict, holds=~undecided)

    def layer(rows: pl.DataFrame) -> Any:
        return alt.Chart(_data(rows), width=WIDE, height=24 * table.height).encode(
            y=alt.Y("method:N", sort=None, title=None, axis=alt.Axis(labelLimit=150)),
            color=alt.Color("verdict:N", scale=alt.Scale(domain=list(VERDICTS), range=list(VERDICTS.values())), title=None, legend=_legend()),
            tooltip=["candidate:N", "against:N", _number("difference"), _number("low"), _number("high"), "verdict:N", "holds:N", _number("p_holm"), _number("tuned_difference")],
        )  # fmt: skip

    lines = [(0.0, "#111827"), (-margin, "#9ca3af")]
    rules = [
        alt.Chart(_data(pl.DataFrame({"at": [at]}))).mark_rule(color=colour, strokeDash=[4, 3] if at else [1, 0]).encode(x="at:Q")
        for at, colour in lines
    ]  # fmt: skip
    x = alt.X("low:Q", title="difference on test")
    looks = ((table.filter("holds"), {"filled": True}), (table.filter(~pl.col("holds")), {"fill": "white"}))
    points = [
        layer(rows).mark_point(size=60, opacity=1, **look).encode(x="difference:Q")
        for rows, look in looks
        if rows.height
    ]
    tuned = table.drop_nulls("tuned_difference")
    ticks = (
        [layer(tuned).mark_tick(thickness=2, size=14, opacity=0.6).encode(x="tuned_difference:Q")]
        if tuned.height
        else []
    )
    return alt.layer(*rules, layer(table).mark_rule(size=2).encode(x=x, x2="high:Q"), *points, *ticks)


def grids(board: pl.DataFrame, metric: str) -> dict[str, Any]:
    """Method -> its points on validation: a heat map over the two parameters with most values, or points over one."""
    made = {}
    merges = board.filter(pl.col("kind") == "merge")
    ends: Any = [merges[f"valid_{metric}_low"].min(), merges[f"valid_{metric}_high"].max()]
    alike = alt.Scale(domain=ends, zero=False, nice=True)  # the same for all, or they could not be compared
    for (method,), part in merges.group_by("method", maintain_order=True):
        names = leaderboard.parameters(board)
        count = {n: part[n].n_unique() for n in names if part[n].null_count() == 0}
        varied = sorted((n for n in count if count[n] > 1), key=lambda n: (-count[n], n))
        if not varied or part.height < 2:
            continue
        first, *rest = varied[:2]
        columns = ["candidate", *varied[:2]]
        table = part.select(*columns, value=f"valid_{metric}", low=f"valid_{metric}_low", high=f"valid_{metric}_high")
        tooltip = ["candidate:N", *(f"{n}:N" for n in varied[:2]), _number("value"), _number("low"), _number("high")]
        if rest:
            smaller = METRICS[metric].smaller_is_better
            best = table.sort("value", descending=not smaller).unique(varied[:2], keep="first", maintain_order=True)
            base = alt.Chart(_data(best), width=WIDE, height=34 * best[rest[0]].n_unique()).encode(
                x=alt.X(f"{first}:O", axis=alt.Axis(labelAngle=0)),
                y=alt.Y(f"{rest[0]}:O", axis=alt.Axis(grid=False)),
                tooltip=tooltip,
            )
            colour = alt.Color(
                "value:Q",
                scale=alt.Scale(scheme="blues", reverse=smaller),
                title=f"best {METRICS[metric].label} on validation",
            )
            middle = (float(best["value"].min()) + float(best["value"].max())) / 2  # type: ignore[arg-type]
            dark = alt.datum.value < middle if smaller else alt.datum.value > middle
            ink = alt.condition(dark, alt.value("white"), alt.value("#111827"))
            made[str(method)] = base.mark_rect().encode(color=colour) + base.mark_text().encode(
                text=alt.Text("value:Q", format=".3f"), color=ink
            )
        else:
            base = alt.Chart(_data(table), width=WIDE, height=160).encode(x=alt.X(f"{first}:O", axis=alt.Axis(labelAngle=0)), tooltip=tooltip)  # fmt: skip
            y = alt.Y("low:Q", title=METRICS[metric].label, scale=alike)
            made[str(method)] = base.mark_rule(color=KINDS["merge"], opacity=0.5).encode(
                y=y, y2="high:Q"
            ) + base.mark_circle(color=KINDS["merge"], size=60, opacity=1).encode(y="value:Q")
    return made


def reliability(scores: dict[str, Scores], names: list[str], how: str) -> Any:
    """Accuracy at each level of confidence on test; how: raw or calibrated."""
    rows = [
        {"candidate": name, "confidence": confidence, "accuracy": accuracy, "weight": weight}
        for name in names
        for weight, confidence, accuracy in scores[name].reliability[how]
    ]
    table = pl.DataFrame(rows)
    ideal = alt.Chart(_data(pl.DataFrame({"x": [0.0, 1.0]}))).mark_line(color="#9ca3af", strokeDash=[4, 3]).encode(x="x:Q", y="x:Q")  # fmt: skip
    lines = alt.Chart(_data(table), width=WIDE, height=320).mark_line(point=True).encode(
        x=alt.X("confidence:Q", scale=alt.Scale(zero=False), title="mean confidence"),
        y=alt.Y("accuracy:Q", title="accuracy"),
        color=alt.Color("candidate:N", title=None, legend=_legend()),
        tooltip=["candidate:N", _number("confidence"), _number("accuracy")],
    )  # fmt: skip
    return ideal + lines


def confusion(matrix: list[list[float]], labels: list[str]) -> Any:
    """Shares of each true class that are predicted as each class, on test."""
    rows = [
        {"true": labels[i], "predicted": labels[j], "share": value / max(sum(row), 1e-12), "texts": round(value, 1)}
        for i, row in enumerate(matrix)
        for j, value in enumerate(row)
    ]
    base = alt.Chart(_data(pl.DataFrame(rows)), width=WIDE, height=30 * len(labels)).encode(
        x=alt.X("predicted:O", sort=None, axis=alt.Axis(labelAngle=0)), y=alt.Y("true:O", sort=None, axis=alt.Axis(grid=False)),
        tooltip=["true:N", "predicted:N", alt.Tooltip("share:Q", format=".1%"), "texts:Q"],
    )  # fmt: skip
    ink = alt.condition(alt.datum.share > 0.5, alt.value("white"), alt.value("#111827"))
    colour = alt.Color("share:Q", scale=alt.Scale(scheme="blues", domain=[0, 1]), legend=None)
    return base.mark_rect().encode(color=colour) + base.mark_text().encode(text=alt.Text("share:Q", format=".0%"), color=ink)  # fmt: skip


def conditions(table: pl.DataFrame, kinds: pl.DataFrame, metric: str) -> Any:
    """Candidates (``kinds`` has the kind of each) on the test reviews of each condition."""
    most = (
        table.group_by("condition")
        .agg(pl.col("reviews").max())
        .sort("reviews", descending=True)
        .head(MANY)["condition"]
    )
    table = table.filter(pl.col("condition").is_in(most.implode())).select(
        "candidate", "trained_on", "condition", "reviews", "value"
    )
    # The colours tell experts and merges apart; whatever is far from them has the colour at the end.
    near = table.join(kinds, on="candidate").filter(pl.col("kind").is_in(["expert", "merge"]))["value"].drop_nulls()
    ends: Any = [near.min(), near.max()] if near.len() > 1 and near.min() != near.max() else alt.Undefined
    colour = alt.Color("value:Q", scale=alt.Scale(scheme="blues", zero=False, domain=ends, clamp=True), title=metric)
    base = alt.Chart(_data(table), width=WIDE, height=22 * table["candidate"].n_unique()).encode(
        x=alt.X("condition:N", sort=None, title=None, axis=alt.Axis(labelAngle=-40, labelLimit=120)),
        y=alt.Y("candidate:N", sort=None, title=None, axis=alt.Axis(labelLimit=170, grid=False)),
        tooltip=["candidate:N", "trained_on:N", "condition:N", "reviews:Q", _number("value")],
    )  # fmt: skip
    cells = base.mark_rect().encode(color=colour)
    if most.len() > FEW:
        return cells
    middle = (float(near.min() or 0) + float(near.max() or 0)) / 2  # type: ignore[arg-type]
    ink = alt.condition(alt.datum.value > middle, alt.value("white"), alt.value("#111827"))
    return cells + base.mark_text().encode(text=alt.Text("value:Q", format=".2f"), color=ink)


def slices(scores: dict[str, Scores], names: list[str], metric: str, columns: list[str]) -> Any:
    """The metric on quarters of the test texts, by what is said of the texts."""
    rows = [
        {"candidate": name, "slice": f"{s['column']}: {s['slice']}", **{k: s["scores"][metric][k] for k in ("value", "low", "high")}}
        for name in names
        for s in scores[name].slices
        if s["column"] in columns and metric in s["scores"]
    ]  # fmt: skip
    if not rows:
        return None
    base = alt.Chart(_data(pl.DataFrame(rows)), width=WIDE, height=10 * len(rows)).encode(
        y=alt.Y("slice:N", sort=None, title=None, axis=alt.Axis(labelLimit=170)),
        yOffset=alt.YOffset("candidate:N", sort=None), color=alt.Color("candidate:N", title=None, legend=_legend()),
        tooltip=["candidate:N", "slice:N", _number("value"), _number("low"), _number("high")],
    )  # fmt: skip
    x = alt.X("low:Q", title=f"{METRICS[metric].label} on test", scale=alt.Scale(zero=False))
    return base.mark_rule(opacity=0.5).encode(x=x, x2="high:Q") + base.mark_circle(opacity=1).encode(x="value:Q")


def training(cards: dict[str, Card]) -> Any:
    """Loss on the batches trained on, and after each epoch on validation."""
    rows = [
        {"model": name, "step": point["step"], "loss": point["loss"], "on": on}
        for name, card in cards.items()
        if isinstance(card, FineTuned)
        for on, curve in (("train", card.loss), ("validation", card.validation))
        for point in curve
    ]
    if not rows:
        return None
    table = pl.DataFrame(rows)
    base = alt.Chart(width=WIDE, height=300).encode(
        x=alt.X("step:Q", title="optimiser step"), y=alt.Y("loss:Q", scale=alt.Scale(zero=False)),
        color=alt.Color("model:N", title=None, legend=_legend()), tooltip=["model:N", "on:N", "step:Q", _number("loss")],
    )  # fmt: skip
    lines = base.mark_line(opacity=0.6).properties(data=_data(table.filter(pl.col("on") == "train")))
    points = base.mark_point(filled=True, size=60, shape="diamond").properties(
        data=_data(table.filter(pl.col("on") == "validation"))
    )
    return lines + points


def _data(table: pl.DataFrame) -> Any:
    return alt.Data(values=table.to_dicts())


def _of_kind() -> Any:
    return alt.Color("kind:N", scale=alt.Scale(domain=list(KINDS), range=list(KINDS.values())), title=None)


def _legend() -> Any:
    return alt.Legend(columns=2, labelLimit=220)


def _number(column: str) -> Any:
    return alt.Tooltip(f"{column}:Q", format=".3f")
