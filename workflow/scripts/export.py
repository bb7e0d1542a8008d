"""Make the validation winner of each method once more, as a complete model folder with its card, and check it.

Of a winner with several runs, the best run on validation is exported.
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
from mllm.core.files import read_json, whole
from mllm.core.messages import progress

if TYPE_CHECKING:
    import polars as pl

    from mllm.evaluation.comparison_table import Comparison
    from mllm.models.cards import Merge

# Each merge has a fresh process, forked from one that has imported the libraries.
PROCESSES = multiprocessing.get_context("forkserver")
REVIEWS = 500  # whose predictions are compared: enough to see any difference, seconds on a CPU
# Of a probability. A GPU's sums differ from a CPU's, and in bfloat16 those of one batch from another's.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.03}


def main(arguments: argparse.Namespace) -> None:
    script.offline()
    threads.fix(arguments.threads)
    PROCESSES.set_forkserver_preload(["torch", "safetensors", "mergekit.merge_methods"])
    import polars as pl

    from mllm.evaluation import comparison_table, result_tables
    from mllm.reporting import model_card

    results = arguments.results
    board, runs = result_tables.read(results, "leaderboard"), result_tables.read(results, "runs")
    comparisons = result_tables.read(results, "comparisons", comparison_table.SCHEMA)
    winners = board.filter(pl.col("winner")).to_dicts()
    with whole(arguments.output) as folder:
        folder.mkdir()
        for winner in progress(winners, "exporting"):
            rivals = comparison_table.rows(comparisons.filter(pl.col("candidate") == winner["candidate"]))
            export(row_of(winner, runs), rivals, folder, arguments, model_card.among_runs(winner, rivals))


def row_of(winner: dict[str, Any], runs: "pl.DataFrame") -> dict[str, Any]:
    """The leaderboard's row of the run of a winner that is exported: with the run's name and its own scores."""
    (run,) = runs.filter(run=winner["best_run"]).to_dicts()
    return {**winner, **run, "candidate": run["run"]}


def export(
    row: dict[str, Any], rivals: list["Comparison"], folder: Path, arguments: argparse.Namespace, among: str
) -> None:
    """Make one winner's folder; refuse it if its weights or its predictions are not the recorded ones."""
    from mllm.data import labelled
    from mllm.models import cards, checkpoint_files
    from mllm.reporting import model_card

    results, name, base = arguments.results, row["candidate"], arguments.bases[row["task"]]
    recorded = cards.Merge.read(results / "merges" / name / "merge.json")
    final, mixed = folder / name, recorded.recipe["method"] == "moe"
    make_again(recorded, base, final, arguments)
    members = {m: cards.read(results / "models" / m) for m in recorded.recipe["members"]}
    split = read_json(results / "data/split.json")
    labels = labelled.worded_names(results / "data", arguments.experiment["tasks"][row["task"]])
    checkpoint_files.name_labels(final, labels)
    recipe = (final / "mergekit_config.yml").read_text(encoding="utf-8")
    if mixed:  # its routers' texts are reviews
        recipe = json.dumps(recorded.recipe, indent=2)
        (final / "mergekit_config.yml").unlink()
    facts = model_card.Facts(
        experiment=arguments.experiment, task=row["task"], labels=labels, row=row, rivals=rivals, merge=recorded, recipe=recipe,
        among=among, members=members, base=cards.Base.read(results / "models" / base / cards.FILE), split=split,
        counts=labelled.task_facts(results / "data", row["task"])["counts"], check=check(final, row, arguments),
    )  # fmt: skip
    (final / "README.md").write_text(model_card.text(facts), encoding="utf-8")


def make_again(recorded: "Merge", base: str, final: Path, arguments: argparse.Namespace) -> None:
    """Make a merge's weights and its mergekit_config.yml once more, in a process of its own.

    Raises:
        Failure: it cannot be made here, or its weights are not the recorded ones.
    """
    from mllm.models import cards

    results, name, made = arguments.results, final.name, final.with_name(f".{final.name}")
    # Sums on another device differ in their last digits.
    given = argparse.Namespace(
        recipe=recorded.recipe, models=results / "models", base=base, data=results / "data", output=made, log=None,
        gpus=int(recorded.device == "cuda"), kept=None,
    )  # fmt: skip
    child = PROCESSES.Process(
        target=merge, args=("mix_experts" if recorded.recipe["method"] == "moe" else "merge", given)
    )
    child.start()
    child.join()
    if child.exitcode:
        raise Failure(f"{name}: cannot be made again (exit status {child.exitcode}); what failed is said above")
    again = cards.Merge.read(made / "merge.json")
    if again.device != recorded.device:
        raise Failure(
            f"{name}: cannot be made again here (found device {again.device}, expected {recorded.device}). Fix: export"
            " where there is a GPU, or merge without one (no merge:gpu in --set-resources)."
        )
    if again.weights != recorded.weights:
        raise Failure(
            f"{name}: made again, the weights differ from those that were scored (SHA-256 {again.weights[:12]}…, was "
            f"{recorded.weights[:12]}…); remove {results / 'merges' / name} and run again"
        )
    (made / "model").rename(final)
    (made / "mergekit.yaml").rename(final / "mergekit_config.yml")
    shutil.rmtree(made)


def merge(name: str, given: argparse.Namespace) -> None:
    """Run the script ``merge`` or ``mix_experts`` in this process."""
    script.run(import_module(name).main, given)


def check(folder: Path, row: dict[str, Any], arguments: argparse.Namespace) -> str:
    """Load the folder as its users will, and compare its predictions with the recorded ones; says what was found.

    It predicts in the recorded number format, and is shown the recorded predictions' examples.
    """
    import numpy as np
    import polars as pl

    from mllm.data import labelled
    from mllm.models import cards, loading, tokens
    from mllm.prediction import asking, prediction_tables, run_model

    rows = labelled.labelled(arguments.results / "data", ("valid", "test"), row["task"]).sort("review_id")
    rows = rows.sample(min(REVIEWS, rows.height), seed=arguments.experiment["seed"])
    recorded = pl.read_parquet(arguments.results / f"predictions/{row['candidate']}.parquet")
    expected = rows.join(recorded, on=["review_id", "split"], how="inner", maintain_order="left")
    card = cards.read(folder).asked()
    names = labelled.worded_names(arguments.results / "data", arguments.experiment["tasks"][row["task"]])
    dtype = row["dtype"]
    model, tokenizer = loading.load_model(folder, card["family"], dtype=dtype)
    scorer, _ = asking.scorer_of(
        card, model, tokenizer, names, arguments.results / "data", arguments.experiment["seed"]
    )
    found = np.exp(run_model.log_probabilities(scorer, tokens.encode(scorer, rows["review"].to_list())))
    difference = float(
        np.abs(found - np.exp(expected.select(prediction_tables.logp_columns(expected)).to_numpy())).max()
    )
    if expected.height != rows.height or difference > TOLERANCE[dtype]:
        raise Failure(
            f"{row['candidate']}: loaded from its folder, it predicts otherwise than it was scored (probabilities differ by "
            f"{difference:.2g}); expected at most {TOLERANCE[dtype]:g} in {dtype}"
        )
    return (
        f"Loaded back from this folder, the model gave {rows.height} reviews drawn from validation and test the probabilities "
        f"that were scored, in {dtype} (largest difference {difference:.1e})."
    )


if __name__ == "__main__":
    parser = script.parser(__doc__)
    parser.add_argument("--results", type=Path, required=True, help="the experiment's folder")
    parser.add_argument("--experiment", type=json.loads, required=True, help="the experiment, as JSON")
    parser.add_argument("--bases", type=json.loads, required=True, help="task -> name of its base, as JSON")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True, help="folder to write, one model folder per winner")
    script.run(main, parser.parse_args())
