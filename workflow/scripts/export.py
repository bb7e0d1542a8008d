"""Remake each method's winner on validation as a complete model folder with its card, and check it.

If a winner has several runs, its best run on validation is exported.
"""

import argparse
import json
import multiprocessing
import shutil
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mllm.core import script, threads
from mllm.core.errors import Failure
from mllm.core.files import whole
from mllm.core.messages import progress

if TYPE_CHECKING:
    import polars as pl

    from mllm.models.cards import Merge
    from mllm.reporting.exported import Exported

# Each merge has a fresh process, forked from a process that has imported the libraries.
PROCESSES = multiprocessing.get_context("forkserver")


def main(arguments: argparse.Namespace) -> None:
    script.offline()
    threads.fix(arguments.threads)
    PROCESSES.set_forkserver_preload(["torch", "safetensors", "mergekit.merge_methods"])
    import polars as pl

    from mllm.evaluation import comparison_table, result_tables
    from mllm.reporting import exported

    results = arguments.results
    board, runs = result_tables.read(results, "leaderboard"), result_tables.read(results, "runs")
    comparisons = result_tables.read(results, "comparisons", comparison_table.SCHEMA)
    winners: dict[str, list[exported.Exported]] = {}
    for row in board.filter(pl.col("winner")).to_dicts():
        rivals = comparison_table.rows(comparisons.filter(pl.col("candidate") == row["candidate"]))
        winners.setdefault(row["whole"] or row["candidate"], []).append(exported.Exported(row, rivals))
    with whole(arguments.output) as folder:
        folder.mkdir()
        for parts in progress(list(winners.values()), "exporting"):
            if parts[0].row["whole"]:
                export_over_tasks(parts, runs, folder, arguments)
            else:
                (winner,) = parts
                export(winner, row_of(winner.row, runs), folder, arguments)


def row_of(winner: dict[str, Any], runs: "pl.DataFrame", name: str = "") -> dict[str, Any]:
    """Return the row of a winner's exported run: the leaderboard's row with the run's name and scores.

    Args:
        winner: the winner's row of the leaderboard.
        runs: the runs of all candidates.
        name: the run's name (default: the best run on validation).
    """
    (run,) = runs.filter(run=name or winner["best_run"]).to_dicts()
    return {**winner, **run, "candidate": run["run"]}


def export(winner: "Exported", row: dict[str, Any], folder: Path, arguments: argparse.Namespace) -> None:
    """Make one winner's folder; refuse it if its weights or predictions differ from the recorded ones."""
    from mllm.models import cards
    from mllm.reporting import exported, model_card

    name = row["candidate"]
    recorded = cards.Merge.read(arguments.results / "merges" / name / "merge.json")
    final, mixed = folder / name, recorded.recipe["method"] == "moe"
    given = {"base": arguments.bases[row["task"]], "data": arguments.results / "data"}
    make_again("mix_experts" if mixed else "merge", recorded, final, given, arguments)
    recipe = (final / "mergekit_config.yml").read_text(encoding="utf-8")
    if mixed:  # the routers' texts are reviews, which are not published
        recipe = json.dumps(recorded.recipe, indent=2)
        (final / "mergekit_config.yml").unlink()
    among = model_card.among_runs(winner.row, winner.rivals)
    facts = exported.facts_of(final, exported.Exported(row, winner.rivals), recorded, (recipe, among), arguments)
    (final / "README.md").write_text(model_card.text(facts), encoding="utf-8")


def export_over_tasks(
    parts: "list[Exported]", runs: "pl.DataFrame", folder: Path, arguments: argparse.Namespace
) -> None:
    """Make the folder of one model for several tasks: a complete folder for each task, and one card for all.

    If there are several runs, the run that is best on validation in most tasks is exported.
    """
    from mllm.models import cards
    from mllm.reporting import exported, model_card, model_card_tasks

    results = arguments.results
    chosen = [exported.whole_run(part.row["best_run"], part.row["task"]) for part in parts]
    name = max(chosen, key=chosen.count)
    recorded = cards.Merge.read(results / "merges" / name / "merge.json")
    members = {member: cards.read(results / "models" / member).task for member in recorded.recipe["members"]}
    tasks = {
        part.row["task"]: {
            "base": arguments.bases[part.row["task"]],
            "members": [member for member, task in members.items() if task == part.row["task"]],
        }
        for part in parts
    }
    final = folder / name
    make_again("merge_tasks", recorded, final, {"tasks": tasks}, arguments)
    recipe = (final / "mergekit_config.yml").read_text(encoding="utf-8")
    facts = {}
    for part in sorted(parts, key=lambda part: str(part.row["task"])):
        task, among = part.row["task"], model_card.among_runs(part.row, part.rivals)
        row = row_of(part.row, runs, exported.part_run(name, task))
        facts[task] = exported.facts_of(
            final / task, exported.Exported(row, part.rivals), recorded, (recipe, among), arguments
        )
    (final / "README.md").write_text(model_card_tasks.text(name, facts), encoding="utf-8")


def make_again(how: str, recorded: "Merge", final: Path, given: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Remake a merge's weights and its mergekit_config.yml in a separate process.

    Args:
        how: the script that makes the merge: merge, merge_tasks or mix_experts.
        recorded: the merge's card.
        final: the folder to make.
        given: the script's arguments other than the recipe, models and output.
        arguments: this script's arguments.

    Raises:
        Failure: the merge cannot be made here, or its weights are not the recorded ones.
    """
    from mllm.models import cards

    results, name, made = arguments.results, final.name, final.with_name(f".{final.name}")
    # Sums on another device differ in their last digits.
    whole_of_it = argparse.Namespace(
        recipe=recorded.recipe, models=results / "models", output=made, log=None,
        gpus=int(recorded.device == "cuda"), kept=None, **given,
    )  # fmt: skip
    child = PROCESSES.Process(target=merge, args=(how, whole_of_it))
    child.start()
    child.join()
    if child.exitcode:
        raise Failure(f"{name}: cannot be remade (found exit status {child.exitcode}, expected 0). Fix the error above")
    again = cards.Merge.read(made / "merge.json")
    if again.device != recorded.device:
        raise Failure(
            f"{name}: cannot be remade here (found device {again.device}, expected {recorded.device}). Fix: export"
            " where there is a GPU, or merge without one (no merge:gpu in --set-resources)."
        )
    if again.weights != recorded.weights:
        raise Failure(
            f"{name}: the remade weights differ from the scored ones (found SHA-256 {again.weights[:12]}…, expected "
            f"{recorded.weights[:12]}…). Fix: delete {results / 'merges' / name} and rerun"
        )
    (made / "model").rename(final)
    (made / "mergekit.yaml").rename(final / "mergekit_config.yml")
    shutil.rmtree(made)


def merge(name: str, given: argparse.Namespace) -> None:
    """Run a merging script in this process."""
    script.run(import_module(name).main, given)


if __name__ == "__main__":
    parser = script.parser(__doc__)
    parser.add_argument("--results", type=Path, required=True, help="the experiment's folder")
    parser.add_argument("--experiment", type=json.loads, required=True, help="the experiment, as JSON")
    parser.add_argument("--bases", type=json.loads, required=True, help="task -> name of its base, as JSON")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--output", type=Path, required=True, help="folder to write, one model folder per winner")
    script.run(main, parser.parse_args())
