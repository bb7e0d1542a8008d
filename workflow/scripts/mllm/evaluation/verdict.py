"""The answer in plain words, with its numbers: written from the tables, never by hand."""

import re
from typing import Any

import polars as pl

from mllm.evaluation import leaderboard, metrics

UNITS = {"flops_per_review": "floating-point operations per review", "n_parameters": "parameters"}


def text(
    name: str,
    frame: pl.DataFrame,
    comparisons: pl.DataFrame,
    selection: pl.DataFrame,
    counts: dict[str, dict[str, dict[str, int]]],
    margin: float,
    leak: str = "",
    classes: dict[str, list[str]] | None = None,
    never: dict[str, list[str]] | None = None,
) -> str:
    """verdict.md: for each task the best merge's answer, its claims, how it was chosen, what it costs.

    Args:
        name: of the experiment.
        frame: the leaderboard.
        comparisons: as from comparison.compare.
        selection: as from comparison.selection.
        counts: task -> split -> reviews and texts.
        margin: how much worse still counts as not worse.
        leak: a line about test reviews that stand in train too.
        classes: task -> names of its classes.
        never: candidate -> classes that it predicts for no test review.
    """
    lines = [f"# {name}: can the merge do it?", ""]
    for (task,), part in frame.group_by("task", maintain_order=True):
        of_task = pl.col("task") == task
        found = _task(
            part,
            comparisons.filter(of_task),
            selection.filter(of_task),
            counts[str(task)],
            margin,
            (classes or {}).get(str(task), []),
            never or {},
            comparisons.filter("claim").height,
        )
        lines += [*found, ""]
    lines += [
        "Differences are on the same test reviews, positive where the merge is better; intervals are 95 %, from a bootstrap over",
        "review texts, each counting once. All choices were made on validation. All comparisons: comparisons.csv.",
    ]
    return "\n".join([*lines, *([leak] if leak else [])]) + "\n"


def _task(
    frame: pl.DataFrame,
    comparisons: pl.DataFrame,
    selection: pl.DataFrame,
    counts: dict[str, dict[str, int]],
    margin: float,
    classes: list[str],
    never: dict[str, list[str]],
    claimed: int,
) -> list[str]:
    winners = frame.filter(pl.col("winner"))
    size = f"{counts['test']['texts']:,} different test texts"
    if not winners.height:
        return [f"Task {frame['task'][0]}: no merges. {_best(frame)}"]
    best = winners.row(0, named=True)
    metric = selection["metric"][0]
    label = metrics.METRICS[metric].label
    merges = frame.filter(pl.col("kind") == "merge").height
    parts = len(best["members"].split())
    made = f", a merge of {parts} models by {best['method']}" if parts else ""
    among = (
        f" ({', '.join(map(plain, classes))})"
        if 0 < len(classes) < 5
        else f" ({len(classes)} classes)"
        if classes
        else ""
    )
    lines = [
        f"Task {best['task']}{among}: **{best['candidate']}**{made}{_chosen(merges)}: {label}"
        f" {_interval(best, f'test_{metric}')} on {size}.",
        "",
    ]
    every = comparisons.filter("claim")
    claims = comparisons.filter(pl.col("claim") & (pl.col("candidate") == best["candidate"]))
    # The question of it all first: many small ones in one against what is larger.
    larger = ((pl.col("kind") == "reference") & (pl.col("cost_ratio") < 1)).fill_null(False)
    claims = claims.sort(larger, descending=True, maintain_order=True)
    if claims.height:
        lines += [
            f"**In short**, counting what stands after Holm's correction over all {claimed} claims: {_short(claims)}.",
            "",
        ]
    lines += [_sentence(row, frame, margin) for row in claims.iter_rows(named=True)]
    lines += _others(every, claims)
    if missing := never.get(best["candidate"]):
        lines += [f"- For no test review it predicts {' or '.join(map(plain, missing))}."]
    return lines + _honesty(selection, best, metric) + _front(frame, best)


def plain(name: str) -> str:
    """A name that users or data gave, in Markdown: each sign stands for itself."""
    return re.sub(r"([\\`*\[\]<>#|~&])", r"\\\1", name)


def _short(claims: pl.DataFrame) -> str:
    """The claims by what is left of them."""
    said = {"better": "better than", "no worse": "no worse than", "worse": "worse than"}
    parts = []
    for verdict, words in said.items():
        names = claims.filter(pl.col("stands").fill_null(False) & (pl.col("verdict") == verdict))["against"].to_list()
        parts += [f"{words} {listed(names)}"] if names else []
    rest = claims.filter(~pl.col("stands").fill_null(False))["against"].to_list()
    return "; ".join([*parts, *([f"not settled against {listed(rest)}"] if rest else [])])


def listed(names: list[str]) -> str:
    """Names in a row, the first 20 of many."""
    return ", ".join(names[:20]) + (f", … ({len(names)} in all)" if len(names) > 20 else "")


def _others(every: pl.DataFrame, claims: pl.DataFrame) -> list[str]:
    """What stands of other methods' winners, against rivals where it does not of the chosen one; not chosen, so only said."""
    settled = claims.filter(pl.col("stands").fill_null(False) & pl.col("verdict").is_in(["better", "no worse"]))[
        "against"
    ]
    rest = every.join(claims, on=["candidate", "against"], how="anti").filter(
        pl.col("stands").fill_null(False) & pl.col("verdict").is_in(["better", "no worse"])
        & ~pl.col("against").is_in(settled.to_list())
    )  # fmt: skip
    return [
        f"- Another method's winner, {row['candidate']}, behind on validation and so not chosen, is {row['verdict']} than {row['against']}:"
        f" {_difference(row)}, which stands."
        for row in rest.sort("difference", descending=True).head(3).iter_rows(named=True)
    ]


def _chosen(merges: int) -> str:
    return f", the best of {merges} merges on validation" if merges > 1 else ", the only merge"


def _best(frame: pl.DataFrame) -> str:
    row = frame.row(0, named=True)
    return f"The best candidate on validation is {row['candidate']} ({row['kind']})."


def _sentence(row: dict[str, Any], frame: pl.DataFrame, margin: float) -> str:
    """One claim: verdict, difference, what is left of it after correction, cost, and what a non-answer could have found."""
    other = frame.filter(pl.col("candidate") == row["against"]).row(0, named=True)
    name, behind, verdict = _named(other), row["high"] < 0, row["verdict"]
    within = verdict == "no worse"
    if within:
        said = (
            f"Behind {name}, but by less than the margin of {margin:g}"
            if behind
            else f"No worse than {name}, within the margin of {margin:g}"
        )
    else:
        said = f"Undecided against {name}" if verdict == "undecided" else f"{verdict.capitalize()} than {name}"
    line = f"- {said}: {_difference(row)}"
    if verdict == "undecided" and behind:
        line += f", behind it, perhaps by no more than the margin of {margin:g}"
    p = row["p_not_worse_holm"] if within else row["p_holm"]
    of = "of being worse by the margin or more" if within else "of no difference"
    if row["stands"] is not None:
        line += f"; after correction this {'stands' if row['stands'] else 'does not stand'} (p {_p(p)}, {of})"
    elif behind and p is not None:
        line += f" (p {_p(p)} after correction, {of})"
    elif verdict == "undecided" and row["detectable"]:
        line += f"; a difference of {row['detectable']:.3f} would have been found four times in five"
    ratio = row["cost_ratio"]
    if ratio is not None and not 0.95 < ratio < 1.05:
        cost = leaderboard.price(frame)
        line += f". It needs {_times(ratio)} the {UNITS[str(cost)]}"
    return line + "."


def _difference(row: dict[str, Any]) -> str:
    return f"{row['difference']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"


def _honesty(selection: pl.DataFrame, best: dict[str, Any], metric: str) -> list[str]:
    """How the choice flatters: optimism found and expected; seeds."""
    row = selection.filter(pl.col("winner") == best["candidate"]).sort("points", descending=True).row(0, named=True)
    lines = [""]
    if row["points"] > 1:
        lines.append(
            f"- Chosen among {row['points']}: {row['valid']:.3f} on validation, {row['test']:.3f} on test, an optimism of"
            f" {row['optimism']:+.3f}; of the best of {row['points']} merges that are all equally good, {row['expected_optimism']:+.3f} is to be expected."
        )
    if row["seed_deviation"] is not None:
        lines.append(
            f"- Its method is random: over {row['seeds']} seeds the test score varies by {row['seed_deviation']:.3f} (standard"
            f" deviation), beside a sampling error of {row['sampling_error']:.3f}."
        )
    if best.get("relative_gain") is not None:
        low, high = best["relative_gain_low"], best["relative_gain_high"]
        lines.append(
            f"- Of the way from the base to the best expert it goes {best['relative_gain']:.0%} ({low:.0%} to {high:.0%})."
        )
    return lines


def _front(frame: pl.DataFrame, best: dict[str, Any]) -> list[str]:
    cost = leaderboard.price(frame)
    if cost is None:
        return []
    front = frame.filter(pl.col("pareto")).sort(cost)
    names = ", ".join(f"{r['candidate']} ({_count(r[cost])})" for r in front.iter_rows(named=True))
    place = "is one of them" if best["pareto"] else "is not among them"
    return [f"- Nothing is both better and cheaper, by {UNITS[cost]}, than any of these: {names}; the merge {place}."]


def _named(row: dict[str, Any]) -> str:
    what = {"expert": "the best expert", "blend": "the best blend", "reference": "the reference"}[row["kind"]]
    size = f", {_count(row['n_parameters'])} parameters" if row["kind"] == "reference" and row["n_parameters"] else ""
    return f"{what}, {row['candidate']}{size}"


def _interval(row: dict[str, Any], column: str) -> str:
    return f"{row[column]:.3f} ({row[f'{column}_low']:.3f} to {row[f'{column}_high']:.3f})"


def _times(ratio: float) -> str:
    """A ratio of costs in words: 1/12.5 of, 3 times."""
    return f"1/{_three(1 / ratio)} of" if ratio < 1 else f"{_three(ratio)} times"


def _three(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _count(value: float) -> str:
    return leaderboard.count(value) or "0"


def _p(value: float) -> str:
    return f"{value:.2g}" if value >= 0.001 else "< 0.001"
