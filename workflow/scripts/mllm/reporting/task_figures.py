"""Draw the charts of one task, from its tables alone."""

from collections import Counter

import polars as pl

from mllm.evaluation import claim_sentences, comparison_table, leaderboard, verdict_answers
from mllm.evaluation.comparison_table import Comparison
from mllm.evaluation.metrics import METRICS
from mllm.evaluation.score_files import Scores
from mllm.reporting.heat_map import Cell, HeatMap
from mllm.reporting.row_chart import Point, Row, RowChart

MANY = 40  # rows or columns of one chart at most
MERGES = 10  # merges in the chart of quality against cost, beside each method's best
TEXTS = (
    "words",
    "readability",
    "exclamations",
    "negations",
)  # slices by text statistics; all others show nearly the same
SLICED, SLICES = 4, 12
COLUMNS = {"flops_per_review": "FLOPs per review", "n_parameters": "parameters"}
PRICES = {"flops_per_review": "operations", "n_parameters": "parameters"}


def answer(claims: list[Comparison], board: pl.DataFrame, margin: float) -> RowChart | None:
    """Draw the selected merge against each rival: larger references, then the best expert, then the others; None without rivals.

    Args:
        claims: of the selected merge.
        board: the task's leaderboard.
        margin: how much worse still counts as not worse.
    """
    methods = dict(board.select("candidate", "method").rows())
    # The constant answer is far from all others and would squeeze them; the tables have it.
    claims = [c for c in claims if methods[c.against] != "majority"]
    first = verdict_answers.larger_references(claims, board) + [c for c in claims if c.kind == "expert"]
    cost = PRICES.get(str(leaderboard.price(board)), "")
    rows = [_difference(c, c.against, cost) for c in [*first, *(c for c in claims if c not in first)]]
    return RowChart(rows=rows[:MANY], axis=_axis(claims), margin=margin) if rows else None


def differences(claims: list[Comparison], methods: dict[str, str], margin: float) -> RowChart:
    """Draw each method's best recipe against one rival.

    Args:
        claims: against this rival.
        methods: candidate -> its method.
        margin: how much worse still counts as not worse.
    """
    rows = [_difference(c, methods[c.candidate]) for c in claims[:MANY]]
    return RowChart(rows=rows, axis=_axis(claims), margin=margin)


def _difference(claim: Comparison, label: str, cost: str | None = None) -> Row:
    """Make a row: of a rival with its kind and cost (``cost``: the word for it), else of a method."""
    facts = {"candidate": claim.candidate, "against": claim.against, "p_holm": claim.p_holm, "holds": claim.holds}
    point = Point(
        value=claim.difference, low=claim.low, high=claim.high, colour=str(claim.answer), tick=claim.tuned_difference, facts=facts
    )  # fmt: skip
    ratio = claim.cost_ratio
    price = f" · {claim_sentences.times(1 / ratio)} the {cost}" if cost and ratio and not 0.95 < ratio < 1.05 else ""
    kind = "" if cost is None else f"{'best ' if claim.kind in ('expert', 'blend') else ''}{claim.kind}: "
    note = f"{claim.answer}: {claim_sentences.difference(claim)}".replace("-", "−")
    return Row(label=f"{kind}{label}{price}", points=[point], note=note)


def _axis(claims: list[Comparison]) -> str:
    return f"difference of {METRICS[claims[0].metric].label} on test; right of 0 the merge is better"


def quality_and_cost(board: pl.DataFrame, metric: str, cost: str, chosen: str) -> RowChart:
    """Draw quality on test, candidates grouped by cost, the cheapest first; filled where no other is better and cheaper.

    Args:
        board: the task's leaderboard, best validation score first.
        metric: which.
        cost: column of the costs.
        chosen: candidate whose cost is the unit of the groups' costs.
    """
    merge, best = pl.col("kind") == "merge", pl.col("winner") | pl.col("pareto")
    drawn = board.filter(~merge | best | (merge.cum_sum() <= MERGES)).head(MANY)
    drawn = drawn.filter(~pl.col("candidate").is_in(left_out(board, metric)))
    unit = board.row(by_predicate=pl.col("candidate") == chosen, named=True)[cost]
    near = (pl.col(cost) / unit).is_between(0.95, 1.05) if unit else pl.lit(False)
    smaller = METRICS[metric].smaller_is_better
    drawn = drawn.with_columns(price=pl.when(near).then(unit).otherwise(pl.col(cost)))
    drawn = drawn.sort("price", f"test_{metric}", descending=[False, not smaller], maintain_order=True)
    rows = []
    for r in drawn.iter_rows(named=True):
        value, low, high = (r[f"test_{metric}{end}"] for end in ("", "_low", "_high"))
        facts = {"candidate": r["candidate"], "kind": r["kind"], cost: r[cost], "pareto": r["pareto"]}
        point = Point(value=value, low=low, high=high, colour=r["kind"], filled=bool(r["pareto"]), facts=facts)
        note = f"{value:.3f} ({low:.3f} – {high:.3f})"
        rows.append(Row(label=r["candidate"], points=[point], note=note, group=_price(r["price"], unit, cost)))
    return RowChart(rows=rows, axis=f"{METRICS[metric].label} on test")


def left_out(board: pl.DataFrame, metric: str) -> list[str]:
    """Return the constant answer and untrained bases that are no better: they would squeeze all others."""
    constant = board.filter(method="majority")
    if not constant.height:
        return []
    floor, smaller = constant[f"test_{metric}"][0], METRICS[metric].smaller_is_better
    score = pl.col(f"test_{metric}")
    worse = score >= floor if smaller else score <= floor
    return [*constant["candidate"], *board.filter((pl.col("kind") == "base") & worse)["candidate"]]


def _price(cost: float, unit: float, column: str) -> str:
    if not cost:
        return "No cost that is counted"
    counted = f"{leaderboard.count(cost)} {COLUMNS[column]}"
    if not unit or cost == unit:
        return f"The merge’s cost: {counted}"
    return f"{claim_sentences.times(cost / unit)} the merge’s cost: {counted}"


def grids(board: pl.DataFrame, metric: str) -> dict[str, RowChart | HeatMap]:
    """Return method -> chart of its recipes on validation, over the one or two parameters with most values, without seeds."""
    made: dict[str, RowChart | HeatMap] = {}
    merges = board.filter(pl.col("kind") == "merge")
    smaller = METRICS[metric].smaller_is_better
    for (method,), part in merges.group_by("method", maintain_order=True):
        count = {
            n: part[n].n_unique() for n in leaderboard.parameters(board) if n != "seed" and not part[n].null_count()
        }
        varied = sorted((n for n in count if count[n] > 1), key=lambda n: (-count[n], n))[:2]
        if not varied:
            continue
        best = part.sort(f"valid_{metric}", descending=not smaller, maintain_order=True)
        best = best.unique(varied, keep="first", maintain_order=True).sort(varied).head(MANY * MANY)
        made[str(method)] = _grid(best, varied, metric, merges)
    return made


def _grid(best: pl.DataFrame, varied: list[str], metric: str, merges: pl.DataFrame) -> RowChart | HeatMap:
    """Draw one method's grid; axis and colours are equal for all ``merges``, so that methods can be compared."""
    values = merges.select(f"valid_{metric}", f"valid_{metric}_low", f"valid_{metric}_high").drop_nulls()
    found = {
        tuple(f"{r[n]:g}" if isinstance(r[n], float) else str(r[n]) for n in varied): (
            r["candidate"], *(r[f"valid_{metric}{end}"] for end in ("", "_low", "_high")),
        )
        for r in best.iter_rows(named=True)
    }  # fmt: skip
    label = METRICS[metric].label
    if len(varied) == 1:
        rows = [
            Row(label=f"{varied[0]} {key}", note=f"{value:.3f} ({low:.3f} – {high:.3f})",
                points=[Point(value=value, low=low, high=high, colour="merge", facts={"candidate": name})])
            for (key,), (name, value, low, high) in list(found.items())[:MANY]
        ]  # fmt: skip
        low, high = float(values[:, 1].to_numpy().min()), float(values[:, 2].to_numpy().max())
        room = 0.03 * (high - low) or 0.01
        return RowChart(rows=rows, axis=f"{label} on validation", domain=(low - room, high + room))
    columns, lines = (list(dict.fromkeys(key[i] for key in found)) for i in (0, 1))
    cells = {(key[1], key[0]): Cell(value=value, low=low, high=high) for key, (_, value, low, high) in found.items()}
    return HeatMap(
        rows=[f"{line}" for line in lines], columns=columns[:MANY], cells=cells, of_rows=varied[1], of_columns=varied[0],
        ends=(float(values[:, 0].to_numpy().min()), float(values[:, 0].to_numpy().max())), smaller_is_better=METRICS[metric].smaller_is_better,
    )  # fmt: skip


def confusion(matrix: list[list[float]], names: list[str]) -> HeatMap:
    """Draw the shares of each true class that are predicted as each class, on test."""
    cells = {
        (names[i], names[j]): Cell(value=value / max(sum(row), 1e-12), mark=i == j)
        for i, row in enumerate(matrix)
        for j, value in enumerate(row)
    }
    return HeatMap(rows=names, columns=names, cells=cells, of_rows="true", of_columns="predicted", share=True)


def parts(table: pl.DataFrame, metric: str) -> HeatMap:
    """Draw candidates on each part of the test reviews; framed where a candidate, or one of its members, learned from the part.

    Args:
        table: rows of ``parts.csv`` of one task and column.
        metric: which.
    """
    most = table.group_by("part").agg(pl.col("reviews").max()).sort("reviews", "part", descending=[True, False])
    columns = most["part"].head(MANY).to_list()
    # The colours tell experts and merges apart; values far from theirs get the colour at the end.
    near = (
        table.filter(pl.col("kind").is_in(["expert", "merge"]))["value"].drop_nulls().to_list()
        or table["value"].to_list()
    )
    cells = {
        (r["candidate"], r["part"]): Cell(
            value=r["value"], low=r["low"], high=r["high"], mark=r["part"] in r["trained_on"].split(", ")
        )
        for r in table.iter_rows(named=True)
        if r["part"] in columns
    }
    rows = list(dict.fromkeys(table["candidate"]))
    return HeatMap(
        rows=rows, columns=columns, cells=cells, of_rows="candidate", of_columns=table["column"][0], ends=(min(near), max(near)),
        smaller_is_better=METRICS[metric].smaller_is_better,
    )  # fmt: skip


def slices(scores: dict[str, Scores], names: list[str], metric: str, columns: list[str]) -> RowChart | None:
    """Draw some candidates on slices of the test texts."""
    rows: dict[tuple[str, str], list[Point]] = {}
    for name in names:
        for s in scores[name].slices:
            if s["column"] in columns and metric in s["scores"]:
                value, low, high = (float(s["scores"][metric][key]) for key in ("value", "low", "high"))
                point = Point(value=value, low=low, high=high, colour=scores[name].kind, facts={"candidate": name})
                rows.setdefault((s["column"], s["slice"]), []).append(point)
    made = [
        Row(
            label=part, points=points, group=column.replace("_", " "), note=" · ".join(f"{p.value:.3f}" for p in points)
        )
        for (column, part), points in rows.items()
    ]
    return RowChart(rows=made, axis=f"{METRICS[metric].label} on test") if made else None


def sliced_columns(scores: Scores, without: list[str]) -> list[str]:
    """Choose at most SLICED columns with at most SLICES values whose slices are shown, except those that chose experts."""
    count = Counter(s["column"] for s in scores.slices if s["column"] not in without)
    few = [column for column, values in count.items() if values <= SLICES]
    return sorted(few, key=lambda c: (c not in TEXTS, few.index(c)))[:SLICED]


def by_rival(claims: pl.DataFrame) -> dict[str, list[Comparison]]:
    """Return rival -> the claims against it, in order."""
    found: dict[str, list[Comparison]] = {}
    for claim in comparison_table.rows(claims):
        found.setdefault(claim.against, []).append(claim)
    return found
