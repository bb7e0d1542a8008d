"""The answer in plain words, with its numbers: written from the tables, never by hand."""

import re
from typing import Any

import polars as pl

from mllm.evaluation import comparison, comparison_table, leaderboard, metrics
from mllm.evaluation.comparison_table import Comparison

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
        counts: task -> split -> reviews and texts; ``told_apart`` where it is not known which reviews are copies of one text.
        margin: how much worse still counts as not worse.
        leak: a line about test reviews that stand in train too.
        classes: task -> names of its classes.
        never: candidate -> classes of the test set that it never predicts.
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
        )
        lines += [*found, ""]
    lines += [
        "Differences are on the same test reviews, positive where the merge is better; intervals are 95 %. Winners and rivals were",
        "chosen on validation. Intervals cover the choice of reviews, not that of training seeds: claims are about these trained",
        "experts, and other seeds may change any of them. All comparisons: comparisons.csv.",
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
) -> list[str]:
    winners = frame.filter(pl.col("winner"))
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
        f" {_interval(best, f'test_{metric}')} on {_size(counts)}.",
        "",
    ]
    every = comparisons.filter("claim")
    claims = comparisons.filter(pl.col("claim") & (pl.col("candidate") == best["candidate"]))
    # The question of it all first: many small ones in one against what is larger.
    larger = ((pl.col("kind") == "reference") & (pl.col("cost_ratio") < 1)).fill_null(False)
    claims = claims.sort(larger, descending=True, maintain_order=True)
    if claims.height:
        rest = every.filter(pl.col("family") == "secondary").height
        lines += [
            f"**In short**, the primary claim tested alone, the {rest} other claims of this task after Holm correction: {_short(claims)}.",
            "",
        ]
    lines += [_sentence(row, frame, margin, every) for row in comparison_table.rows(claims)]
    lines += _others(every, claims)
    if missing := never.get(best["candidate"]):
        lines += [f"- It never predicts {' or '.join(map(plain, missing))} on the test set."]
    if claims.height and (support := claims["support"][0]) < comparison.FEWEST:
        lines += [
            f"- The rarest class has {support} test texts. Below {comparison.FEWEST}, tests of macro averages find too many differences."
        ]
    return lines + _honesty(selection, best) + _front(frame, best)


def _size(counts: dict[str, Any]) -> str:
    """How many test texts there are, or what is not known of it."""
    apart = counts.get("told_apart")
    if apart is None:
        return f"{counts['test']['texts']:,} different test texts"
    line = f"{counts['test']['reviews']:,} test reviews"
    if apart["test"] == counts["test"]["reviews"]:
        return f"{line} (which of them are copies of one text is not known)"
    both = f", {apart['also_in_valid']:,} of them also in validation" if apart["also_in_valid"] else ""
    return f"{line}, at most {apart['test']:,} different texts{both} (copies are not known, so each review counts as one text)"


def plain(name: str) -> str:
    """A name that users or data gave, in Markdown: each sign stands for itself."""
    return re.sub(r"([\\`*\[\]<>#|~&])", r"\\\1", name)


SAID = {"better": "better than", "no worse": "no worse than", "worse": "worse than", "behind": "behind", "undecided": "inconclusive against"}  # fmt: skip


def _short(claims: pl.DataFrame) -> str:
    """The claims by what holds after correction."""
    names = {verdict: claims.filter(pl.col("holds") == verdict)["against"].to_list() for verdict in SAID}
    return "; ".join(f"{words} {listed(names[verdict])}" for verdict, words in SAID.items() if names[verdict])


def listed(names: list[str]) -> str:
    """Names in a row, the first 20 of many."""
    return ", ".join(names[:20]) + (f", … ({len(names)} in all)" if len(names) > 20 else "")


def _others(every: pl.DataFrame, claims: pl.DataFrame) -> list[str]:
    """Claims of other methods' winners that hold, against rivals where the chosen one's does not; not chosen, so only said."""
    good = pl.col("holds").is_in(["better", "no worse"])
    settled = claims.filter(good)["against"].to_list()
    rest = every.join(claims, on=["candidate", "against"], how="anti").filter(good & ~pl.col("against").is_in(settled))
    return [
        f"- {row.candidate} is {row.holds} than {row.against} ({_difference(row)}, after correction),"
        " but lost on validation, so it is not selected."
        for row in comparison_table.rows(rest.sort("difference", descending=True).head(3))
    ]


def _chosen(merges: int) -> str:
    return f", the best of {merges} merges on validation" if merges > 1 else ", the only merge"


def _best(frame: pl.DataFrame) -> str:
    row = frame.row(0, named=True)
    return f"The best candidate on validation is {row['candidate']} ({row['kind']})."


def _sentence(row: Comparison, frame: pl.DataFrame, margin: float, every: pl.DataFrame) -> str:
    """One claim: the strongest statement that holds, its difference and p-value, what was possible to show, cost."""
    other = frame.filter(pl.col("candidate") == row.against).row(0, named=True)
    first = "Primary claim: " if row.family == "primary" else ""
    said = _statement(row, _named(other), margin)
    line = f"- {first}{said if first else said.replace('**not', '**Not', 1) if said.startswith('**') else said[0].upper() + said[1:]}."
    family = every.filter(pl.col("family") == row.family).height
    if row.holds == "undecided" and row.detectable:
        line += f" Taken alone, a difference of {row.detectable:.3f} would be found four times in five"
        more = f"; after correction over {family} claims up to {row.detectable_holm:.3f} is needed"
        line += (more if family > 1 else "") + "."
    line += _calibrated(row)
    ratio = row.cost_ratio
    if ratio is not None and not 0.95 < ratio < 1.05:
        line += f" It needs {_times(ratio)} the {UNITS[str(leaderboard.price(frame))]}."
    return line


def _statement(row: Comparison, name: str, margin: float) -> str:
    difference, within = _difference(row), f"within {margin:g}"
    p, p_not_worse, p_worse = (_p(found) for found in (row.p_holm, row.p_not_worse_holm, row.p_worse_holm))
    if row.holds == "better":
        return f"better than {name}: {difference}; corrected p {p}"
    if row.holds == "no worse":
        chance = ", but that lead may be chance after correction" if row.verdict == "better" else ""
        behind = (
            f"behind {name}, but by less than the margin of {margin:g}"
            if row.high < 0
            else f"at least as good as {name} {within}"
        )
        return f"{behind}: {difference}{chance}; corrected p of a larger loss {p_not_worse}"
    if row.holds == "worse":
        return f"worse than {name} by more than {margin:g}: {difference}; corrected p of a smaller loss {p_worse}"
    if row.holds == "behind":
        return f"behind {name}: {difference}; corrected p {p}. A loss of more than {margin:g} is neither shown nor ruled out"
    if row.high < 0:
        return f"behind {name} taken alone: {difference}; not beyond chance after correction (p {p}), nor shown to be {within}"
    return (
        f"**not shown** against {name}: {difference}; a loss of more than the margin of {margin:g} is not ruled out"
        f" (corrected p {p_not_worse}; 0.025 needed)"
    )


def _calibrated(row: Comparison) -> str:
    """What fitting a temperature and class offsets on validation makes of the difference, where that says something else."""
    value, low, high = row.calibrated_difference, row.calibrated_low, row.calibrated_high
    found = f"{value:+.3f} ({low:+.3f} to {high:+.3f})"
    if row.holds == "better" and low <= 0:
        return f" With temperature and class offsets fitted on validation the lead is not shown, {found}: sharpening or class priors may explain it."
    sides = ((row.low > 0) - (row.high < 0), (low > 0) - (high < 0))
    return f" With both calibrated on validation: {found}." if sides[0] != sides[1] else ""


def _difference(row: Comparison) -> str:
    return f"{row.difference:+.3f} ({row.low:+.3f} to {row.high:+.3f})"


def _honesty(selection: pl.DataFrame, best: dict[str, Any]) -> list[str]:
    """How the choice flatters: optimism found and expected; seeds."""
    row = selection.filter(pl.col("winner") == best["candidate"]).sort("points", descending=True).row(0, named=True)
    lines = [""]
    if row["points"] > 1:
        lines.append(
            f"- Chosen among {row['points']}: {row['valid']:.3f} on validation, {row['test']:.3f} on test, an optimism of"
            f" {row['optimism']:+.3f}; the best of {row['points']} equally good merges would look {row['expected_optimism']:.3f} too good on average."
        )
    if row["seed_deviation"] is not None:
        lines.append(
            f"- Its method is random: over {row['seeds']} seeds of the merge the test score is {row['seeds_mean']:.3f} ({row['seeds_low']:.3f}"
            f" to {row['seeds_high']:.3f}, over reviews and seeds); standard deviation {row['seed_deviation']:.3f}, sampling error {row['sampling_error']:.3f}."
        )
    if best.get("relative_gain") is not None:
        low, high = best["relative_gain_low"], best["relative_gain_high"]
        lines.append(
            f"- Of the way from the constant answer to the best expert it goes {best['relative_gain']:.0%} ({low:.0%} to {high:.0%})."
        )
    return lines


def _front(frame: pl.DataFrame, best: dict[str, Any]) -> list[str]:
    cost = leaderboard.price(frame)
    if cost is None:
        return []
    front = frame.filter(pl.col("pareto")).sort(cost)
    names = ", ".join(
        f"{r['candidate']} ({_count(r[cost])}; {r['pareto_share']:.0%})" for r in front.iter_rows(named=True)
    )
    place = f"the merge is {'one of them' if best['pareto'] else 'not'}, and in {best['pareto_share']:.0%} of resamples"
    return [
        f"- On these test texts nothing is both better and cheaper, by {UNITS[cost]}, than (in brackets: cost; share of resamples with"
        f" the same answer) {names}; {place}."
    ]


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


def _p(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:.2g}" if value >= 0.001 else "< 0.001"
