"""Compare systems over several tasks: one model, or several used together. Makes tasks.csv and tasks_comparisons.csv.

Scores are divided by those of each task's best expert on validation (see ``normalised``). Merges are chosen on validation; all other
numbers are of test.
"""

from collections import Counter
from collections.abc import Mapping
from functools import cache, cached_property
from typing import Any

import numpy as np
import polars as pl

from mllm.core.arrays import Array
from mllm.evaluation import comparison, intervals, metrics, normalised, replicates, run_table, selection, tasks_choice
from mllm.evaluation.normalised import Measured, Number
from mllm.evaluation.score_files import Scores
from mllm.evaluation.shared_draws import Pairs
from mllm.evaluation.tasks_table import COMPARISONS, columns, schema
from mllm.experiment.schema import Compare
from mllm.experiment.systems import SWITCH, System


class OverTasks:
    """Hold an experiment's systems and the tables and draws behind their numbers.

    Args:
        systems: as from experiment.systems.
        frame: the leaderboard, each task's best validation score first.
        runs: the table of runs.
        pairs: task -> draws.
        compare: the metric, and the score that chooses merges and makes claims: mean, worst, or a task's name.
        scores: run -> its score file.
    """

    def __init__(
        self, systems: list[System], frame: pl.DataFrame, runs: pl.DataFrame, pairs: Mapping[str, Pairs], compare: Compare,
        scores: Mapping[str, Scores],
    ) -> None:  # fmt: skip
        metric, by = compare.metric, compare.tasks
        self.frame, self.runs, self.pairs, self.metric, self.by, self.scores = frame, runs, pairs, metric, by, scores
        self.row = {r["candidate"]: r for r in frame.iter_rows(named=True)}
        self.place = {name: i for i, name in enumerate(frame["candidate"])}
        self.repeated = replicates.repetitions(runs)
        self.experts = tasks_choice.own_experts(frame, metric)
        self.systems = {s.name: s for s in systems}
        self.used = {s.name: {t: min(of, key=self.place.__getitem__) for t, of in s.options.items()} for s in systems}
        """System -> task -> the candidate that it uses there."""
        self.winners = tasks_choice.winners(frame, metric, by)
        self.measured = cache(self._measured)

    def _measured(self, candidate: str, split: str) -> Measured:
        repeated, task = self.repeated[candidate], self.row[candidate]["task"]
        part, column = self.runs.filter(pl.col("candidate") == candidate), f"{split}_{self.metric}"
        draws = [self.pairs[task].draws_of_runs(names, self.metric, split).mean(axis=0) for names in repeated]
        function, reach = metrics.OF_CONFUSION.get(self.metric), 0.0
        if function:
            matrices = [np.array(self.scores[run].confusion[split]) for names in repeated for run in names]
            reach = float(np.mean([intervals.reach(function, matrix) for matrix in matrices]))
        return Measured(candidate, run_table.per_repetition(part, repeated, column), np.stack(draws), reach)

    def number(
        self, system: str, tasks: tuple[str, ...] = (), split: str = "test", best: bool = False
    ) -> dict[str, Number]:
        """Return task -> a system's score over the expert's (``best``: over that of the best candidate on validation)."""
        used, found = self.used[system], {}
        for task in tasks or tuple(used):
            rival = self.best[task] if best else self.experts[task]
            found[task] = normalised.ratio(
                self.measured(used[task], split), self.measured(rival, split), self.metric, task
            )
        return found

    @cached_property
    def best(self) -> dict[str, str]:
        """Return task -> the best single candidate on validation."""
        return dict(self.frame.unique("task", keep="first", maintain_order=True).select("task", "candidate").rows())

    def parameters(self, system: str) -> int | None:
        """Count a system's parameters, shared weights once; None where some are unknown."""
        rows = [self.row[c] for c in dict.fromkeys(self.used[system].values())]
        counts = [r.get("parameters_of_whole") or r["n_parameters"] for r in rows]
        if any(count is None for count in counts):
            return None
        return int(max(counts) if self.systems[system].one else sum(counts))

    def weak(self) -> list[str]:
        """Return tasks whose expert may be no better than the constant answer: shares of such a score say little."""
        found, sign = [], metrics.sign(self.metric)
        for task, expert in self.experts.items():
            lead = self.measured(expert, "test").draws.mean(axis=0) - self.pairs[task].constant(self.metric)[1:]
            found += [task] if np.quantile(sign * lead, 0.025) <= 0 else []
        return found

    # ── tasks.csv ──

    def table(self) -> pl.DataFrame:
        """Make one row per system, the best on validation first; see tasks_table.columns."""
        tasks = sorted({task for used in self.used.values() for task in used})
        rows = [self._row(name, tasks) for name in self.systems]
        rows.sort(
            key=lambda r: (-len(r["tasks"].split()), -r[f"valid_{'mean' if self.by in tasks else self.by}_normalised"])
        )
        return pl.DataFrame(rows, schema=schema(columns(tasks)))

    def _row(self, name: str, tasks: list[str]) -> dict[str, Any]:
        system, used = self.systems[name], self.used[name]
        parts, valid = self.number(name), self._on_validation(used)
        row: dict[str, Any] = {
            "system": name, "kind": system.kind, "method": system.method, "members": " ".join(system.members),
            "tasks": " ".join(used), "candidates": " ".join(used.values()), "winner": name in self.winners,
            "chosen": name == self.winners[0] if self.winners else False, "metric": self.metric,
            **{f"valid_{how}_normalised": tasks_choice.combined(valid, how) for how in ("mean", "worst")},
        }  # fmt: skip
        for how in ("mean", "worst"):
            low, high = normalised.interval(parts, how)
            value = normalised.over_tasks(parts, how).value
            row |= {f"{how}_normalised": value, f"{how}_normalised_low": low, f"{how}_normalised_high": high}
        row["worst_task"] = min(parts, key=lambda task: parts[task].value)
        row["mean_of_best"] = normalised.over_tasks(self.number(name, best=True), "mean").value
        row["n_parameters"] = self.parameters(name)
        for task in tasks:
            found = parts[task].tested() if task in parts else None
            row[task] = self.row[used[task]][f"test_{self.metric}"] if found else None
            row |= {
                f"{task}_normalised{end}": getattr(found, key) if found else None
                for end, key in run_table.ENDS
            }  # fmt: skip
        return row

    def _on_validation(self, used: dict[str, str]) -> dict[str, float]:
        column = f"valid_{self.metric}"
        return {
            task: tasks_choice.normalised(
                self.row[name][column], self.row[self.experts[task]][column], self.metric, f"task {task}, {name}"
            )
            for task, name in used.items()
        }

    # ── tasks_comparisons.csv ──

    def comparisons(self, margin: float) -> pl.DataFrame:
        """Compare each merge over several tasks with all other systems that cover its tasks; claims first. See tasks_table.COMPARISONS.

        Winners have claims, in families as within one task: one primary claim, all others corrected together.
        """
        merges = [s.name for s in self.systems.values() if s.kind == "merge"]
        order = [*self.winners, *(name for name in merges if name not in self.winners)]
        rows = [self._pair(name, rival, margin) for name in order for rival in self.rivals(name)]
        found = comparison.corrected(rows, schema(COMPARISONS))
        return found.sort("claim", descending=True, maintain_order=True)

    def rivals(self, merge: str) -> list[str]:
        """Return all systems that are no merges and cover a merge's tasks."""
        tasks = set(self.used[merge])
        return [s.name for s in self.systems.values() if s.kind != "merge" and tasks <= set(self.used[s.name])]

    def primary(self, merge: str) -> str:
        """Return the rival of a merge's primary claim: the largest reference that is larger than it, else each task's expert."""
        mine, sizes = self.parameters(merge), {r: self.parameters(r) for r in self.rivals(merge)}
        larger = {
            r: size for r, size in sizes.items()
            if size and mine and size > mine and self.systems[r].kind == "reference" and self.systems[r].method != "router"
        }  # fmt: skip
        return max(larger, key=lambda r: larger[r]) if larger else SWITCH

    def _pair(self, name: str, rival: str, margin: float) -> dict[str, Any]:
        tasks, claim = tuple(self.used[name]), name in self.winners
        mine, theirs = (normalised.over_tasks(self.number(one, tasks), self.by) for one in (name, rival))
        found, sizes = (mine - theirs).tested(margin), [self.parameters(one) for one in (name, rival)]
        claim = claim and self.systems[rival].kind != "base"
        first = claim and name == self.winners[0] and rival == self.primary(name)
        return {
            "candidate": name, "against": rival, "kind": self.systems[rival].kind, "tasks": " ".join(tasks),
            "claim": claim, "family": ("primary" if first else "secondary") if claim else None,
            "metric": self.metric, "by": self.by, "value": mine.value, "other": theirs.value,
            **found.columns(),
            "cost_ratio": sizes[0] / sizes[1] if sizes[0] and sizes[1] else None,
        }  # fmt: skip

    # ── selection.csv ──

    def choices(self) -> list[dict[str, Any]]:
        """Make rows of selection.csv with normalised scores: for each method's merges over the same tasks, and for all of them."""
        score, covers = tasks_choice.on_validation(self.frame, self.metric, self.by), tasks_choice.covered(self.frame)
        groups: dict[tuple[str, str], list[str]] = {}
        for name in sorted(score, key=lambda whole: (-score[whole], whole)):
            for method in (self.systems[name].method, "all"):
                groups.setdefault((" ".join(covers[name]), method), []).append(name)
        methods = Counter(tasks for tasks, _ in groups)
        return [
            self._chosen(points, score[points[0]]).row(tasks, method, f"{self.by}_normalised", larger=True)
            for (tasks, method), points in sorted(groups.items())
            if method != "all" or methods[tasks] > 2
        ]

    def _chosen(self, points: list[str], valid: float) -> selection.Choice:
        draws = np.stack([normalised.over_tasks(self.number(p, split="valid"), self.by).draws for p in points])
        found = normalised.over_tasks(self.number(points[0]), self.by)
        spread = found.tested().spread
        left_out, error = np.stack([self._left_out(p) for p in points]), float(found.draws.std())
        runs = max(self.row[c]["runs"] for c in self.used[points[0]].values())
        return selection.Choice(points, valid, found.value, draws, left_out, runs, spread.deviation, error)

    def _left_out(self, system: str) -> Array:
        """Return (first resamples,) the score that chooses, on the validation texts that each resample leaves out."""
        smaller, parts = metrics.METRICS[self.metric].smaller_is_better, {}
        for task, name in self.used[system].items():
            mine, expert = self.pairs[task].left_out([name, self.experts[task]], self.metric)
            top, bottom = (expert, mine) if smaller else (mine, expert)
            parts[task] = top / np.maximum(bottom, 1e-12)
        if self.by in parts:
            return parts[self.by]
        return np.asarray((np.min if self.by == "worst" else np.mean)([*parts.values()], axis=0))
