"""Put several experiments' leaderboards into one table, and compare methods over their data sets and tasks.

Only candidates scored on the same test reviews share a table. Over different test reviews, methods are compared by
their scores on each.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mllm.core import script
from mllm.core.errors import Failure
from mllm.core.files import read_json, whole

if TYPE_CHECKING:
    import polars as pl

SAME = ("split", "seed", "compare", "tasks")  # keys of the experiment files whose differences are printed


def main(arguments: argparse.Namespace) -> None:
    import polars as pl
    import yaml

    from mllm.evaluation import result_tables
    from mllm.evaluation.metrics import METRICS

    names = [folder.name for folder in arguments.results]
    if len(set(names)) < len(names):
        raise Failure(
            f"several folders have one name (found {max(names, key=names.count)!r}). Fix: rename one, or link to it"
        )
    boards, tests, files = [], {}, {}
    for folder in arguments.results:
        if not (folder / "leaderboard.parquet").exists():
            raise Failure(f"{folder}: no leaderboard.parquet; expected a finished experiment's folder, as results/demo")
        facts = read_json(folder / "data/split.json")
        files[folder.name] = yaml.safe_load((folder / "experiment.yaml").read_text(encoding="utf-8"))
        tests[folder.name] = facts["sha256"]["test"]
        boards.append(
            result_tables.read(folder, "leaderboard").select(pl.lit(folder.name).alias("experiment"), pl.all())
        )
    table = pl.concat(boards, how="diagonal_relaxed")
    metric = arguments.metric or files[arguments.results[0].name]["compare"]["metric"]
    if f"test_{metric}" not in table.columns or not metric.endswith(tuple(METRICS)):
        raise Failure(
            f"--metric: unknown metric (found {metric!r}, expected a metric of the leaderboards, as accuracy)"
        )
    for digest in dict.fromkeys(tests.values()):
        names = [name for name, found in tests.items() if found == digest]
        for (task,), part in table.filter(pl.col("experiment").is_in(names)).group_by("task", maintain_order=True):
            sys.stdout.write(f"{', '.join(names)}: task {task}, test reviews {digest[:12]}\n\n{_drawn(part, metric)}\n")
        for line in differences({name: files[name] for name in names}):
            sys.stdout.write(f"  differs: {line}\n")
    if len(set(tests.values())) > 1:
        sys.stdout.write("\nDifferent tables have different test reviews: do not compare scores between tables.\n")
    margin = files[arguments.results[0].name]["compare"]["margin"] if arguments.margin is None else arguments.margin
    over_units(table, tests, metric, margin, arguments.diagram)
    if arguments.output:
        with whole(arguments.output) as partial:
            table.with_columns(test_digest=pl.col("experiment").replace_strict(tests)).write_csv(partial)


def over_units(table: "pl.DataFrame", tests: dict[str, str], metric: str, margin: float, diagram: Path | None) -> None:
    """Print which merge methods are better over all data sets and tasks; write the diagram of their ranks.

    Args:
        table: all leaderboards.
        tests: experiment -> digest of its test reviews.
        metric: the metric to compare by.
        margin: methods are equivalent if they differ by less than this.
        diagram: path of the diagram without its ending, if one is wanted.
    """
    import polars as pl

    from mllm.core.chart_style import styled
    from mllm.evaluation import over_units
    from mllm.reporting import paper_files, rank_chart

    first = {digest: name for name, digest in reversed(tests.items())}  # the same reviews are one unit, not two
    board = table.filter(pl.col("experiment").is_in(list(first.values()))).with_columns(
        unit=pl.format("{}, {}", "experiment", "task")
    )
    units = board["unit"].unique(maintain_order=True).to_list()
    found, ranked = over_units.compare(board, metric, margin), over_units.ranked(board, metric)
    if found.height:
        sys.stdout.write(
            f"\nOver {len(units)} data sets and tasks ({'; '.join(units)}): each method's winner on validation, its {metric} on test."
            f"\nProbabilities for the next one: the first is better, both are within {margin:g}, the second is better (Bayesian"
            f" signed-rank test; its prior is one unit without a difference):\n\n{_shown(found.drop('metric'))}\n"
        )
    if ranked:
        names, ranks, number = ranked
        listed = ", ".join(f"{n} {r:.2f}" for r, n in sorted(zip(ranks.mean.tolist(), names, strict=True)))
        friedman = "" if ranks.p is None else f"; Friedman's test of no difference: p {ranks.p:.2g}"
        sys.stdout.write(
            f"\nMean ranks over {number}: {listed}. Nemenyi's critical distance (5 %): {ranks.distance:.2f}{friedman}.\n"
        )
    if diagram and ranked:
        paper_files.write_chart(styled(rank_chart.diagram(ranked[0], ranked[1])).to_dict(), diagram)


def differences(files: dict[str, dict[str, Any]]) -> list[str]:
    """Return one line for each key in which experiments of one table differ."""
    found = []
    for key in SAME:
        values = {name: file.get(key) for name, file in files.items()}
        if len({repr(v) for v in values.values()}) > 1:
            found.append(f"{key}: " + "; ".join(f"{name} {value}" for name, value in values.items()))
    return found


def _drawn(part: "pl.DataFrame", metric: str) -> str:
    """Return the leaderboard of one task over experiments as text."""
    import polars as pl

    from mllm.evaluation import metrics

    shown = part.sort(f"valid_{metric}", descending=metrics.sign(metric) > 0, nulls_last=True).select(
        "experiment", "candidate", "kind",
        *(pl.col(f"{split}_{metric}").round(3).alias(f"{split} {metric}") for split in ("valid", "test")),
        pl.format("{} – {}", pl.col(f"test_{metric}_low").round(3), pl.col(f"test_{metric}_high").round(3)).alias("95 % interval"),
    )  # fmt: skip
    return _shown(shown)


def _shown(table: "pl.DataFrame") -> str:
    import polars as pl

    with pl.Config(
        tbl_rows=-1, tbl_cols=-1, fmt_str_lengths=60, tbl_width_chars=200, tbl_hide_dataframe_shape=True,
        tbl_hide_column_data_types=True, tbl_formatting="NOTHING", float_precision=3,
    ):  # fmt: skip
        return str(table)


if __name__ == "__main__":
    parser = script.parser(__doc__)
    parser.add_argument("results", type=Path, nargs="+", help="folders of finished experiments, as results/demo")
    parser.add_argument("--metric", help="metric of the leaderboards (default: the first experiment's)")
    parser.add_argument(
        "--margin", type=float, help="smaller differences are equivalent (default: the first experiment's)"
    )
    parser.add_argument("--diagram", type=Path, help="critical-difference diagram to write, .svg, .png and .csv")
    parser.add_argument("--output", type=Path, help="table to write, with all columns of all leaderboards (CSV)")
    script.run(main, parser.parse_args())
