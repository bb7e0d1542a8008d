"""Show what earlier versions of an experiment file left in its results, or delete it.

Leftovers are models, merges, predictions, logs and benchmarks of candidates that the file no longer has. They are also
checkpoints of finished trainings, outdated tokens, exports without a candidate, and half-written files. All models are
kept while the file has an untrained model: it may be one of them under a new name, and then reuses it. Files that
another experiment file in config/ uses are kept: by its name, or by paths into these results.
"""

import argparse
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from mllm.core import script
from mllm.core.counting import counted
from mllm.core.files import remove
from mllm.core.messages import log
from mllm.experiment import grid, load
from mllm.experiment.candidates import Grid
from mllm.experiment.schema import Experiment
from mllm.experiment.yaml_files import ExperimentError, read_yaml

ENDINGS = (".cost.json", ".parquet", ".log", ".tsv", ".predictions")
CONFIG = Path("config")


def main(arguments: argparse.Namespace) -> None:
    experiment = load.load(*arguments.experiment, override=arguments.override)
    results = arguments.results / experiment.name
    used, paths = used_names(experiment), []
    built = grid.build(experiment)
    trained = {
        built.candidates[name].whole or name for name in built.made_by("train_expert", "train_tasks", "take_expert")
    }
    for file in others(arguments.experiment):
        if re.search(rf"\b{re.escape(results.as_posix())}/", file.read_text(encoding="utf-8")):
            paths += re.findall(rf"{re.escape(results.as_posix())}/([\w./*-]+)", file.read_text(encoding="utf-8"))
        try:
            if read_yaml(file).get("name") == experiment.name:
                used |= used_names(load.load(file))
        except ExperimentError as error:
            log.warning("%s cannot be read, and may use these results: nothing is pruned", file)
            raise error
    found = [
        p
        for p in outermost(leftovers(results, used, trained, {} if experiment.keep == "all" else parts_of(built)))
        if not wanted(p.relative_to(results), paths)
    ]
    total = 0
    for kind in dict.fromkeys(p.relative_to(results).parts[0] for p in found):
        of_kind = [p for p in found if p.relative_to(results).parts[0] == kind]
        sizes = [size(p) for p in of_kind]
        total += sum(sizes)
        print(f"{results}/{kind}: {counted(len(of_kind), 'leftover')}, {in_bytes(sum(sizes))}")
        for path, bytes_ in zip(of_kind, sizes, strict=True):
            print(f"  {path.relative_to(results)}  {in_bytes(bytes_)}")
            if arguments.delete:
                remove(path)
    if not found:
        print(f"{results}: no leftovers")
    elif arguments.delete:
        print(f"Deleted {counted(len(found), 'leftover')}, {in_bytes(total)}.")
    else:
        print(
            f"{counted(len(found), 'leftover')}, {in_bytes(total)}. Nothing is deleted; `make prune DELETE=1` or --config"
            f" delete=true deletes them.\nAll that {' '.join(map(str, arguments.experiment))} and the files in {CONFIG}/"
            " use is kept; experiment files elsewhere are not read."
        )


def others(files: list[Path]) -> list[Path]:
    """Return the experiment files in config/ other than the given ones."""
    given = {file.resolve() for file in files}
    return [f for f in sorted(CONFIG.glob("*.y*ml")) if f.resolve() not in given]


def used_names(experiment: Experiment) -> set[str]:
    """Return all names of an experiment's candidates, checkpoints and tasks, which their files have."""
    built = grid.build(experiment)
    return {*built.candidates, *built.wholes, *built.starts, *(task.name for task in experiment.tasks)}


def parts_of(built: Grid) -> dict[str, list[str]]:
    """Map each merge to the candidates predicted with its weights: itself, or one for each task that it covers."""
    return {name: [c.name for c in built.wholes.get(name, {}).values()] or [name] for name in built.merges}


def leftovers(results: Path, used: set[str], trained: set[str], temporary: dict[str, list[str]]) -> Iterator[Path]:
    """Yield files and folders that no candidate of the present file has or needs.

    Args:
        results: the experiment's results.
        used: all names in the present file and in other files of the same experiment name.
        trained: names of the models that the present file trains or takes.
        temporary: merges whose weights are deleted once all their candidates are predicted -> these candidates.
    """
    models = {p.name for p in entries(results / "models")}
    for folder in ("merges", "predictions", "export", "data/tasks", *(["models"] if trained <= models else [])):
        yield from (p for p in entries(results / folder) if name_of(p) not in used)
    for folder in ("logs", "benchmarks"):
        for rule in entries(results / folder):
            yield from (p for p in entries(rule) if name_of(p) not in used)
    for path in entries(results / "checkpoints"):
        name, final = name_of(path), results / "models" / name_of(path)
        if path.name.endswith(".predictions"):
            final = results / f"predictions/{name}.parquet"
        if name not in used or final.exists():
            yield path
    split = results / "data/split.json"
    if split.exists():
        yield from (p for p in entries(results / "data/tokens") if p.stat().st_mtime < split.stat().st_mtime)
    for merge, candidates in temporary.items():  # a killed run did not delete weights that predictions no longer need
        predicted = all((results / f"predictions/{name}.parquet").exists() for name in candidates)
        yield from (path for path in [results / f"merges/{merge}/model"] if predicted and path.exists())
    for path in (results / "predictions/.identities").glob("*"):
        if (name := path.read_text()) not in used or not (results / f"predictions/{name}.parquet").exists():
            yield path
    yield from (p for p in results.rglob(".*") if re.search(r"\.(partial|old)-\d+$", p.name))


def outermost(paths: Iterable[Path]) -> list[Path]:
    """Return each path once, without paths inside another."""
    there = set(paths)
    return sorted(p for p in there if not there & set(p.parents))


def entries(folder: Path) -> list[Path]:
    """Return a folder's entries without hidden files; an empty list if the folder is missing."""
    return sorted(p for p in folder.glob("*") if not p.name.startswith(".")) if folder.is_dir() else []


def name_of(path: Path) -> str:
    """Return a candidate's name, from one of its files or folders."""
    ending = next((e for e in ENDINGS if path.name.endswith(e)), "")
    return path.name.removesuffix(ending)


def wanted(path: Path, others: list[str]) -> bool:
    """Tell whether another experiment names this path, one inside it or one around it; names may have wildcards."""
    return any(
        path.match(o) or path.is_relative_to(o) or Path(o).is_relative_to(path) for o in (o.rstrip("/") for o in others)
    )


def size(path: Path) -> int:
    files = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
    return sum(f.lstat().st_size for f in files)


def in_bytes(number: float) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"


if __name__ == "__main__":
    parser = script.parser(__doc__)
    parser.add_argument("--experiment", type=Path, nargs="+", required=True, help="experiment file")
    parser.add_argument("--override", type=json.loads, default={}, help="values that replace the file's, as JSON")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder with all results")
    parser.add_argument("--delete", action="store_true", help="delete what is shown")
    script.run(main, parser.parse_args())
