"""Compute before training which margin can be shown with which power, by test texts, replicates and candidates."""

import argparse
import json
from pathlib import Path

from mllm.core import script
from mllm.core.counting import counted
from mllm.core.errors import Failure

DISCORDANT = (0.05, 0.1, 0.2, 0.3)  # shares of texts on which exactly one of two models is right
TEXTS = (500, 1000, 2000, 5000, 10_000, 20_000, 50_000)
REPLICATES = (1, 2, 3, 5, 10)
SPREADS = (0.0, 0.005, 0.01, 0.02)  # standard deviations of a paired difference over training seeds


def main(arguments: argparse.Namespace) -> None:
    from mllm.evaluation import planning
    from mllm.experiment import grid, read

    experiment = read.read(*arguments.experiment, override=arguments.override)
    built, margin = grid.build(experiment), experiment.compare.margin
    for task in experiment.tasks:
        known = planning.test_texts(arguments.results, task.name)
        texts = known or planning.expected_texts(
            experiment.data, experiment.split, arguments.results, arguments.reviews
        )
        found = planning.pilot(arguments.pilot or arguments.results, task.name)
        if arguments.pilot and not found:
            raise Failure(f"{arguments.pilot}: no claims of task {task.name!r} (expected comparisons.csv and scores/ of a"
                          " finished experiment)")  # fmt: skip
        number = planning.claims_of(built.candidates.values(), task.name)
        merges = len({c.name for c in built.candidates.values() if c.kind == "merge" and c.task == task.name})
        noises = [found] if found else [planning.assumed(share) for share in DISCORDANT]
        where = counted(texts, "test text") if texts else "number of test texts not yet known"
        print(
            f"{experiment.name}, task {task.name}: margin {margin:g}, {where}, 1 primary and {counted(number, 'other claim')}, {counted(merges, 'merge')}"
        )
        for noise in noises:
            print(f"\n{noise.source[0].upper()}{noise.source[1:]}:\n")
            print(_power(noise, texts, margin, max(number, 1)))
        print(f"\n{_replicates(noises[-1], texts or TEXTS[2], margin)}")
        valid = (
            planning.expected_texts(experiment.data, experiment.split, arguments.results, arguments.reviews, "valid")
            or TEXTS[0]
        )
        luck = ", ".join(f"{n} merges {planning.optimism(noises[-1], valid, n):.3f}" for n in (2, 10, 30, 100, 300))
        print(
            f"\nThe best of several equal and independent merges on {valid:,} validation texts looks too good by: {luck}."
        )


def _power(noise: object, texts: int | None, margin: float, claims: int) -> str:
    """Return a table of power by texts for an equal rival, alone and as the hardest claim after correction.

    Below it are the texts needed for 80 % power.
    """
    from mllm.evaluation import planning

    assert isinstance(noise, planning.Noise)
    sizes = sorted({*TEXTS, *([texts] if texts else [])})
    head = f"{'test texts':>12}{'alone':>8}{f'of {claims}':>8}{'margin at 80 %':>16}"
    lines = [
        f"{('→ ' if n == texts else '') + format(n, ','):>12}{planning.power(noise, n, margin):>8.0%}"
        f"{planning.power(noise, n, margin, claims=claims):>8.0%}{planning.margin_shown(noise, n):>16.3f}"
        for n in sizes
    ]
    if margin > 0:
        needed = (planning.texts_needed(noise, margin, claims=c) for c in (1, claims))
        lines.append("80 % need " + ", ".join(f"{n:,} texts {how}" for n, how in zip(needed, ("alone", "after correction"), strict=True)) + ".")  # fmt: skip
    return "\n".join([head, *lines])


def _replicates(noise: object, texts: int, margin: float) -> str:
    """Return a table of simulated power by replicates and by a paired difference's spread over training seeds."""
    from mllm.evaluation import planning, planning_replicates

    assert isinstance(noise, planning.Noise)
    lines = [f"Power with {texts:,} texts, by replicates and by the difference's standard deviation over training seeds:",
             f"{'replicates':>12}" + "".join(f"{s:>8g}" for s in SPREADS)]  # fmt: skip
    for number in REPLICATES:
        cells = [planning_replicates.power(number, spread, noise.deviation / texts**0.5, margin) for spread in SPREADS]
        lines.append(f"{number:>12}" + "".join("      –" if c is None else f"{c:>8.0%}" for c in cells))
    lines.append("One replicate says nothing about other trainings (–): its claims are about these trained experts.")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = script.parser(__doc__)
    parser.add_argument("--experiment", type=Path, nargs="+", required=True, help="experiment file")
    parser.add_argument("--override", type=json.loads, default={}, help="values that replace the file's, as JSON")
    parser.add_argument("--results", type=Path, required=True, help="the experiment's folder, which may not exist yet")
    parser.add_argument(
        "--reviews", type=int, default=0, help="number of reviews in all files; needed until they are split"
    )
    parser.add_argument(
        "--pilot", type=Path, help="folder of a finished experiment; its claims show how much texts vary"
    )
    script.run(main, parser.parse_args())
