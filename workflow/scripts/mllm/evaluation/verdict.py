"""Write the answer in plain words with its numbers, from the tables."""

import re
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from mllm.core.counting import counted
from mllm.evaluation import (
    claim_sentences,
    comparison,
    comparison_table,
    leaderboard,
    metrics,
    rivals,
    tasks_verdict,
    verdict_answers,
)
from mllm.evaluation.score_files import Estimates


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Hold what the verdict says beside the tables' numbers."""

    name: str
    """Of the experiment."""
    margin: float
    """How much worse still counts as not worse."""
    counts: dict[str, dict[str, Any]]
    """task -> split -> reviews and texts; ``told_apart`` where it is unknown which reviews are copies of one text."""
    leak: str = ""
    """A line about test reviews that are also in train."""
    classes: dict[str, list[str]] = field(default_factory=dict)
    """task -> names of its classes."""
    never: dict[str, list[str]] = field(default_factory=dict)
    """Candidate -> classes of the test set that it never predicts."""
    recall: dict[str, Estimates] = field(default_factory=dict)
    """Run -> recall of each class on test, with its interval."""
    over_tasks: list[str] = field(default_factory=list)
    """Lines on models over several tasks; see ``tasks_verdict``."""
    chosen: str = ""
    """The chosen merge over several tasks."""


def text(facts: Facts, frame: pl.DataFrame, comparisons: pl.DataFrame, selection: pl.DataFrame) -> str:
    """Write verdict.md: for each task the answers, the chosen merge, its claims, how it was chosen, what it costs.

    Args:
        facts: what the tables do not hold.
        frame: the leaderboard.
        comparisons: as from comparison.compare.
        selection: as from selection.selection.
    """
    lines = [f"# {facts.name}: can the merge do it?", "", *facts.over_tasks]
    for (task,), part in frame.group_by("task", maintain_order=True):
        lines += [f"## Task {task}", ""] if frame["task"].n_unique() > 1 else []
        said = _task(facts, part, *(table.filter(pl.col("task") == task) for table in (comparisons, selection)))
        lines += [*(line for line in said if not verdict_answers.said_before(line, lines)), ""]
    costs = {leaderboard.price(part) for _, part in frame.group_by("task")}
    lines += [
        comparison_table.rule(facts.margin),
        *([claim_sentences.OPERATIONS] if "flops_per_review" in costs else []),
        "Differences are on the same test reviews, positive where the merge is better; intervals are 95 %. Winners and rivals were",
        "chosen on validation. All comparisons: comparisons.csv; all runs: runs.csv.",
    ]
    return "\n".join([*lines, *([facts.leak] if facts.leak else [])]) + "\n"


def _task(facts: Facts, frame: pl.DataFrame, comparisons: pl.DataFrame, selection: pl.DataFrame) -> list[str]:
    winners = rivals.own_winners(frame)
    over = (
        tasks_verdict.part(facts.chosen, frame, comparisons, _size(facts.counts[frame["task"][0]]))
        if facts.chosen
        else []
    )
    if not winners.height:
        within = " within it" if over else ""
        return [f"Task {frame['task'][0]}: no merges{within}. {_best(frame)}", *(["", *over] if over else [])]
    best = winners.row(0, named=True)
    every = comparisons.filter("claim")
    claims = every.filter(pl.col("candidate") == best["candidate"])
    claims = claims.sort(pl.col("family") == "primary", descending=True, maintain_order=True)
    rows = comparison_table.rows(claims)
    lines = [*verdict_answers.answers(best, rows, frame, facts.margin), ""] if rows else []
    lines += [_merge(best, selection["metric"][0], frame, facts), *verdict_answers.about(best, rows, frame), ""]
    if rows:
        rest = every.filter(pl.col("family") == "secondary").height
        lines += [f"**In short**: {_short(claims)}. {claim_sentences.correction(rest, 'of this task')}", ""]
    lines += [claim_sentences.sentence(row, frame, facts.margin, every) for row in rows]
    lines += _others(every, claims) + _fails(facts, best)
    if rows and (support := rows[0].support) < comparison.FEWEST:
        lines += [
            f"- The rarest class has {counted(support, 'test text')}. Below {comparison.FEWEST}, tests of macro averages find too many differences."
        ]
    return lines + _honesty(selection, best) + _front(frame, best) + (["", *over] if over else [])


def _merge(best: dict[str, Any], metric: str, frame: pl.DataFrame, facts: Facts) -> str:
    """Name the merge that the answers are about, and its score."""
    task, merges, parts = (
        best["task"],
        frame.filter(pl.col("kind") == "merge", pl.col("whole").is_null()).height,
        len(best["members"].split()),
    )
    classes = facts.classes.get(task, [])
    named = ", ".join(map(plain, classes)) if len(classes) < 5 else f"{len(classes)} classes"
    made = f", a merge of {counted(parts, 'model')} by {best['method']}" if parts else ""
    spread = ""
    if best["runs"] > 1:
        spread = f", mean of {best['runs']} runs with a standard deviation of {best[f'test_{metric}_sd']:.3f},"
    return (
        f"Task {task}{f' ({named})' if classes else ''}: **{best['candidate']}**{made}{_chosen(merges)}: {metrics.METRICS[metric].label}"
        f" {claim_sentences.interval(best, f'test_{metric}')}{spread} on {_size(facts.counts[task])}."
    )


def _size(counts: dict[str, Any]) -> str:
    """Say how many test texts there are, or that copies are unknown."""
    apart = counts.get("told_apart")
    if apart is None:
        return counted(counts["test"]["texts"], "different test text")
    line = counted(counts["test"]["reviews"], "test review")
    if apart["test"] == counts["test"]["reviews"]:
        return f"{line} (it is unknown which of them are copies of one text)"
    both = f", {apart['also_in_valid']:,} of them also in validation" if apart["also_in_valid"] else ""
    return f"{line}, at most {counted(apart['test'], 'different text')}{both} (copies are unknown, so each review counts as one text)"


def _fails(facts: Facts, best: dict[str, Any]) -> list[str]:
    """Say where the merge fails: classes that it never predicts, and the weakest other class by the exported run's recall."""
    never = facts.never.get(best["candidate"], [])
    lines = [f"- It never predicts {' or '.join(map(plain, never))} on the test set."] if never else []
    known = {name: of for name, of in facts.recall.get(best["best_run"], {}).items() if name not in never}
    if len(known) < 2:
        return lines
    name, of = min(known.items(), key=lambda item: item[1]["value"] or 0.0)
    first = "Of all other classes, the weakest" if never else "Its weakest class"
    run = f" (run {best['best_run']})" if best["runs"] > 1 else ""
    return [*lines, f"- {first} is {plain(name)}: recall {of['value']:.2f} ({of['low']:.2f} to {of['high']:.2f}){run}."]


def plain(name: str) -> str:
    """Escape a name that users or data gave for Markdown."""
    return re.sub(r"([\\`*\[\]<>#|~&])", r"\\\1", name)


SAID = {"better": "better than", "no worse": "no worse than", "worse": "worse than", "behind": "behind", "undecided": "inconclusive against"}  # fmt: skip


def _short(claims: pl.DataFrame) -> str:
    """List the claims by what holds after correction."""
    names = {verdict: claims.filter(pl.col("holds") == verdict)["against"].to_list() for verdict in SAID}
    return "; ".join(f"{words} {listed(names[verdict])}" for verdict, words in SAID.items() if names[verdict])


def listed(names: list[str]) -> str:
    """List names, the first 20 of many."""
    return ", ".join(names[:20]) + (f", … ({len(names)} in all)" if len(names) > 20 else "")


def _others(every: pl.DataFrame, claims: pl.DataFrame) -> list[str]:
    """Mention claims of other methods' winners that hold against rivals where no claim of the chosen merge does."""
    good = pl.col("holds").is_in(["better", "no worse"])
    settled = claims.filter(good)["against"].to_list()
    rest = every.join(claims, on=["candidate", "against"], how="anti").filter(good & ~pl.col("against").is_in(settled))
    return [
        f"- {row.candidate} is {row.holds} than {row.against} ({claim_sentences.difference(row)}, after correction),"
        " but lost on validation, so it is not selected."
        for row in comparison_table.rows(rest.sort("difference", descending=True).head(3))
    ]


def _chosen(merges: int) -> str:
    return f", the best of {merges} merges on validation" if merges > 1 else ", the only merge"


def _best(frame: pl.DataFrame) -> str:
    row = frame.row(0, named=True)
    return f"The best candidate on validation is {row['candidate']} ({row['kind']})."


def _honesty(selection: pl.DataFrame, best: dict[str, Any]) -> list[str]:
    """Say how optimistic the choice is, found and expected, and how runs vary."""
    row = selection.filter(pl.col("winner") == best["candidate"]).sort("points", descending=True).row(0, named=True)
    lines = [""]
    if row["points"] > 1:
        lines += [
            f"- It was chosen among {row['points']}: {row['valid']:.3f} on validation, {row['test']:.3f} on test, an optimism of"
            f" {row['optimism']:+.3f}. Scored by validation texts that did not choose: {row['crossfitted']:.3f}. The best of"
            f" {row['points']} equally good merges would look {row['expected_optimism']:.3f} too good on average.",
            f"- In {percent(row['chosen_again'])} of resamples of validation it would be chosen again, {row['second']} in"
            f" {percent(row['second_share'])}.",
        ]
    if row["run_deviation"] is not None:
        lines.append(
            f"- Over its {row['runs']} runs the test score has a standard deviation of {row['run_deviation']:.3f}; the sampling error over"
            f" texts is {row['sampling_error']:.3f}."
        )
    if best.get("relative_gain") is not None:
        low, high = 100 * best["relative_gain_low"], 100 * best["relative_gain_high"]
        lines.append(
            f"- On a scale from the constant answer (0 %) to the best expert (100 %) it scores {percent(best['relative_gain'])} ({low:.0f} to {high:.0f})."
        )
    return lines


def _front(frame: pl.DataFrame, best: dict[str, Any]) -> list[str]:
    cost = leaderboard.price(frame)
    if cost is None:
        return []
    front = frame.filter(pl.col("pareto")).sort(cost)
    names = ", ".join(
        f"{r['candidate']} ({claim_sentences.count(r[cost])}; {percent(r['pareto_share'])})"
        for r in front.iter_rows(named=True)
    )
    place = "one of these" if best["pareto"] else "not among these"
    return [
        f"- On these test texts, no candidate is both better and cheaper than {names}. In brackets: {claim_sentences.UNITS[cost]}, and the share of"
        f" resamples with the same result. The merge is {place}; it would be in {percent(best['pareto_share'])} of resamples."
    ]


def percent(share: float) -> str:
    """Write a share in per cent, without decimals."""
    return f"{100 * share:.0f} %"
