"""Read the results of one experiment from its folder: tables as polars frames, models by transformers."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mllm.core.errors import Failure
from mllm.core.wording import listed, nearest

if TYPE_CHECKING:
    import polars as pl


class Results:
    """One experiment's finished results.

    Args:
        folder: ``results/<name>``.

    Raises:
        Failure: the folder has no leaderboard.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / "leaderboard.parquet").exists():
            raise Failure(f"{folder}: no results (found no leaderboard.parquet). Fix: run the experiment first")
        self.folder = folder

    def __repr__(self) -> str:
        return f"mllm.open({str(self.folder)!r}): {self.leaderboard.height} candidates"

    @cached_property
    def leaderboard(self) -> "pl.DataFrame":
        """One row per candidate; columns as in docs/scores.md."""
        return self.table("leaderboard")

    @cached_property
    def runs(self) -> "pl.DataFrame":
        """One row per run of each candidate: ``pain``, ``pain@2``, …"""
        return self.table("runs")

    @cached_property
    def comparisons(self) -> "pl.DataFrame":
        """One row per pair of candidates that is compared on the same test reviews; claims have an ``answer``."""
        return self.table("comparisons")

    @cached_property
    def tasks(self) -> "pl.DataFrame":
        """One row per model over several tasks, or several used together; columns as in docs/tasks.md.

        Raises:
            Failure: no model of the experiment covers several tasks.
        """
        board = self.leaderboard
        if "whole" not in board.columns or board["whole"].null_count() == board.height:
            raise Failure(
                f"{self.folder}: no model covers several tasks, so there is no table of tasks."
                " Fix: merge experts of several tasks"
            )
        return self.table("tasks")

    @property
    def verdict(self) -> str:
        """The verdict as Markdown."""
        return self._file("verdict.md").read_text(encoding="utf-8")

    @property
    def candidates(self) -> list[str]:
        """Names of all candidates, in the leaderboard's order."""
        return list(self.leaderboard["candidate"])

    def table(self, name: str) -> "pl.DataFrame":
        """Return a table of the experiment's folder by its name: leaderboard, comparisons, selection, agreement, …

        Raises:
            Failure: the table is missing, damaged, or has another version.
        """
        from mllm.evaluation import result_tables

        return result_tables.read(self.folder, name)

    def predictions(self, candidate: str) -> "pl.DataFrame":
        """Return a run's predictions: review_id, split, label, a logp column per class, and the predicted class index.

        A candidate's name is also the name of its first run.

        Raises:
            Failure: the candidate is unknown.
        """
        import polars as pl

        self._check(candidate)
        table = pl.read_parquet(self._file(f"predictions/{candidate}.parquet"))
        logp = [c for c in table.columns if c.startswith("logp_")]
        return table.with_columns(predicted=pl.concat_list(logp).list.arg_max().cast(pl.Int64))

    def model_folder(self, candidate: str) -> Path:
        """Return the folder of a run's weights, if they are kept; for a winner with several runs, the exported run's.

        Raises:
            Failure: the candidate is unknown, has no weights, or its weights were not kept.
        """
        self._check(candidate)
        exported = dict(self.leaderboard.select("candidate", "best_run").rows()).get(candidate, candidate)
        places = (f"export/{exported}", f"models/{candidate}", f"merges/{candidate}/model")
        for place in places:
            if (self.folder / place / "config.json").exists():
                return self.folder / place
        kind = self.runs.row(by_predicate=_is(candidate), named=True)["kind"]
        if kind == "merge":
            raise Failure(
                f"{candidate}: its weights were not kept. Fix: run `snakemake export` to make each method's winner"
                " again, or set `keep: all` to keep every merge"
            )
        raise Failure(f"{candidate}: a {kind} without a model folder in {self.folder}")

    def model(self, candidate: str) -> tuple[Any, Any]:
        """Return a candidate's model and tokenizer of transformers, on the CPU in evaluation mode.

        Raises:
            Failure: as :meth:`model_folder`.
        """
        from mllm.models import cards, loading

        folder = self.model_folder(candidate)
        model, tokenizer = loading.load_model(folder, cards.read(folder).family)
        return model.eval(), tokenizer

    def _check(self, candidate: str) -> None:
        if candidate not in set(self.runs["run"]):
            raise Failure(
                f"{self.folder}: no candidate {candidate!r}{nearest(candidate, self.candidates)}"
                f" (found {listed(self.candidates)})"
            )

    def _file(self, name: str) -> Path:
        path = self.folder / name
        if not path.exists():
            raise Failure(f"{path}: no such file. Fix: run the experiment until it finishes")
        return path


def _is(candidate: str) -> "pl.Expr":
    import polars as pl

    return pl.col("run") == candidate
