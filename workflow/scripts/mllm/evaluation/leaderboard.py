"""The leaderboard: one row per candidate, and the same as a plain text table."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mllm.evaluation import metrics, significance
from mllm.evaluation.score_files import Scores
from mllm.evaluation.shared_draws import Pairs
from mllm.prediction.costs import Cost
from mllm.prediction.prediction_tables import COST

ENDS = (("", "value"), ("_low", "low"), ("_high", "high"))
PRICES = ("flops_per_review", "n_parameters")  # what the quality is held against: the first that all candidates have


def table(scores: list[tuple[Scores, Cost]], metric: str) -> pl.DataFrame:
    """One row per candidate, task by task, best validation score first.

    Args:
        scores: as from :func:`read_scores`.
        metric: chooses each method's winner (on validation alone) and sorts.

    Returns:
        candidate, kind, method, task, members, one column per parameter, recipe (all parameters as JSON), winner, then
        ``valid_<metric>``, ``valid_<metric>_low``, ``valid_<metric>_high``, the same for test, both once more as
        ``<split>_calibrated_<metric>``, metrics of decisions as ``<split>_tuned_<metric>``, and the cost; where some candidate is asked by a prompt, ``<split>_contextual_<metric>``
        and ``<split>_batch_<metric>``. ``all_<metric>`` where the predictions were made elsewhere.
    """
    names = dict.fromkeys(name for s, _ in scores for name in s.parameters)
    trained = {s.candidate: cost.train_seconds for s, cost in scores}
    members = {s.candidate: s.members for s, _ in scores}
    priors = dict.fromkeys(name for s, _ in scores for name in s.priors)
    rows = []
    for s, cost in scores:
        row: dict[str, Any] = {k: getattr(s, k) for k in ("candidate", "kind", "method", "task")}
        row["members"] = " ".join(s.members)
        row |= {name: _cell(s.parameters.get(name)) for name in names}
        row |= {"recipe": json.dumps(s.parameters, sort_keys=True), "winner": False}
        without = [(f"{name}_", s.priors.get(name) or {"valid": {}, "test": {}}) for name in priors]
        for kind, parts in (("", s.scores), ("calibrated_", s.calibrated), ("tuned_", s.tuned), *without):
            for split, m in (
                (split, m)
                for split in ("valid", "test", "all")
                if split in parts
                for m in (metrics.OF_CONFUSION if kind == "tuned_" else metrics.METRICS)
            ):
                value = parts[split].get(m, {})
                row |= {f"{split}_{kind}{m}{end}": value.get(key) for end, key in ENDS}
        row |= {name: getattr(cost, name) for name in COST}
        row["train_seconds"] = train_seconds(s.candidate, members, trained)
        rows.append(row)
    frame = pl.DataFrame(rows, infer_schema_length=None)
    tasks = {task: i for i, task in enumerate(dict.fromkeys(frame["task"]))}
    order = pl.col("task").replace_strict(tasks, return_dtype=pl.Int64)
    descending = not metrics.METRICS[metric].smaller_is_better
    frame = frame.sort([order, f"valid_{metric}", "candidate"], descending=[False, descending, False])
    merged = pl.col("kind") == "merge"
    winners = frame.filter(merged).group_by("task", "method", maintain_order=True).first()["candidate"]
    return frame.with_columns(winner=pl.col("candidate").is_in(winners.implode()))


def train_seconds(name: str, members: dict[str, list[str]], own: dict[str, float | None]) -> float | None:
    """Seconds of all the trainings beneath a candidate, each once; none where one is not known."""
    beneath: set[str] = set()

    def collect(one: str) -> None:
        beneath.add(one)
        for member in members.get(one, []):
            collect(member)

    collect(name)
    seconds = [own.get(one) for one in sorted(beneath)]
    return None if any(s is None for s in seconds) else round(sum(s for s in seconds if s is not None), 1)


# ── What a row is worth among the others: columns put behind ``winner`` ──


def ranked(frame: pl.DataFrame, pairs: dict[str, Pairs], metric: str) -> pl.DataFrame:
    """Add rank, rank_low, rank_high (a set that holds the true rank), relative_gain, pareto and pareto_share, within each task."""
    parts = []
    for (task,), part in frame.group_by("task", maintain_order=True):
        names = part["candidate"].to_list()
        draws, values = pairs[str(task)].draws(names, metric), part[f"test_{metric}"].to_numpy()
        rank, low, high = significance.rank_sets(values, draws, not metrics.METRICS[metric].smaller_is_better)
        added = [pl.Series(n, v, dtype=pl.Int64) for n, v in (("rank", rank), ("rank_low", low), ("rank_high", high))]
        gain = relative_gain(part, draws, values, pairs[str(task)].constant(metric), metric)
        added += [pl.Series(n, v, dtype=pl.Float64) for n, v in gain.items()]
        parts.append(
            part.with_columns(*added, pareto=pareto(part, metric), pareto_share=pareto_share(part, draws, metric))
        )
    whole = pl.concat(parts)
    first = frame.columns[: frame.columns.index("winner") + 1]
    new = ["rank", "rank_low", "rank_high", *(f"relative_gain{end}" for end, _ in ENDS), "pareto", "pareto_share"]
    return whole.select(*first, *new, *frame.columns[len(first) :])


def relative_gain(
    part: pl.DataFrame, draws: np.ndarray, values: np.ndarray, constant: np.ndarray, metric: str
) -> dict[str, list[float | None]]:
    """(merge − constant) / (best expert − constant) on test, of merges; the best expert is validation's.

    The constant answer (validation's shares of the classes) is what needs no model: an untrained head may be far below it.
    None where there is no expert, or where the expert's lead is not sure: the ratio says nothing then.

    Args:
        part: a task's rows of the leaderboard, best validation score first.
        draws: (candidates, resamples) of the metric.
        values: (candidates,)
        constant: (1 + resamples,) the constant answer's value and draws.
        metric: which.
    """
    kinds = part["kind"].to_list()
    found: dict[str, list[float | None]] = {f"relative_gain{end}": [None] * len(kinds) for end, _ in ENDS}
    if "expert" not in kinds:
        return found
    expert, floor, floor_draws = kinds.index("expert"), constant[0], constant[1:]
    lead = draws[expert] - floor_draws
    if np.quantile(metrics.sign(metric) * lead, 0.025) <= 0:
        return found
    for i in (i for i, kind in enumerate(kinds) if kind == "merge"):
        low, high = np.quantile((draws[i] - floor_draws) / lead, [0.025, 0.975])
        one = (values[i] - floor) / (values[expert] - floor)
        for (end, _), value in zip(ENDS, (one, low, high), strict=True):
            found[f"relative_gain{end}"][i] = float(value)
    return found


def parameters(frame: pl.DataFrame) -> list[str]:
    """Names of the recipes' parameters, each a column of the leaderboard."""
    return list(dict.fromkeys(name for recipe in frame["recipe"] for name in json.loads(recipe)))


def price(part: pl.DataFrame) -> str | None:
    """The cost that all of a task's candidates have."""
    return next((c for c in PRICES if part[c].null_count() == 0), None)


def pareto(part: pl.DataFrame, metric: str) -> pl.Series:
    """Which rows no other beats: none is as good on test and cheaper, or better and as cheap. None without costs."""
    cost = price(part)
    if cost is None:
        return pl.Series("pareto", [None] * part.height, dtype=pl.Boolean)
    quality = metrics.sign(metric) * part[f"test_{metric}"].to_numpy()
    costs = part[cost].to_numpy().astype(float)
    as_good = (quality[None, :] >= quality[:, None]) & (costs[None, :] <= costs[:, None])
    better = (quality[None, :] > quality[:, None]) | (costs[None, :] < costs[:, None])
    return pl.Series("pareto", ~(as_good & better).any(axis=1))


def pareto_share(part: pl.DataFrame, draws: np.ndarray, metric: str) -> pl.Series:
    """In which share of the resamples a row is on that front. None without costs."""
    cost = price(part)
    if cost is None:
        return pl.Series("pareto_share", [None] * part.height, dtype=pl.Float64)
    return pl.Series("pareto_share", significance.front_shares(metrics.sign(metric) * draws, part[cost].to_numpy()))


# ── For people ──


def text(frame: pl.DataFrame, metric: str, title: str) -> str:
    """The leaderboard for a terminal, a table for each task; winners of each method starred."""
    parts = []
    for (task,), rows in frame.group_by("task", maintain_order=True):
        heading = f"{title}: {rows.height} candidates, task {task}, sorted by {metric} on validation"
        parts += [heading, "", *_drawn(rows, metric), ""]
    note = "* the method's best recipe on validation; intervals: 95 % bootstrap over review texts, each counting once"
    return "\n".join([*parts, note]) + "\n"


def leak_line(facts: dict[str, Any]) -> str:
    """What the test reviews share with the train file, in numbers; nothing where test was drawn from all files.

    Args:
        facts: of data/split.json.
    """
    if facts["mode"] == "random" or not facts["test_rows"]:
        return ""
    leak, rows = facts["test_rows_also_in_train"], facts["test_rows"]
    found = f"{leak:,} of {rows:,} test reviews ({leak / rows:.1%}) stand in the train file too"
    if facts["mode"] == "official":
        return f"WARNING: {found}, and are kept (split.mode: official): all test scores are too good"
    return f"{found}, and are left out of test"


def _drawn(frame: pl.DataFrame, metric: str) -> list[str]:
    second = {} if metric == "accuracy" else {"test_accuracy": "test accuracy"}
    second |= {f"test_tuned_{metric}": "offsets fitted"} if metric in metrics.OF_CONFUSION else {}
    header = [
        "",
        "candidate",
        "kind",
        f"valid {metric}",
        f"test {metric}",
        "95 % interval",
        *second.values(),
        "parameters",
        "reviews/s",
    ]
    lines = []
    for r in frame.iter_rows(named=True):
        lines.append([
            "*" if r["winner"] else "",
            r["candidate"],
            r["kind"],
            f"{r[f'valid_{metric}']:.3f}",
            f"{r[f'test_{metric}']:.3f}",
            f"{r[f'test_{metric}_low']:.3f} – {r[f'test_{metric}_high']:.3f}",
            *(f"{r[column]:.3f}" for column in second),
            count(r["n_parameters"]),
            f"{r['reviews_per_second']:,.0f}" if r["reviews_per_second"] else "",
        ])  # fmt: skip
    widths = [max(len(line[i]) for line in [header, *lines]) for i in range(len(header))]
    left = (0, 1, 2)
    return [
        "  ".join(
            c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [header, ["─" * w for w in widths], *lines]
    ]


def read_scores(scores: Path, predictions: Path, candidates: list[str]) -> list[tuple[Scores, Cost]]:
    """Each candidate's score file, with its cost."""
    return [(Scores.read(scores / f"{c}.json"), Cost.read(predictions / f"{c}.cost.json")) for c in candidates]


def _cell(value: Any) -> Any:
    return json.dumps(value, sort_keys=True) if isinstance(value, dict) else value


def count(value: float | None) -> str:
    """A number with its unit, for people: 124M."""
    if not value:
        return ""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return str(value)
