"""Sum the time and memory of an experiment's jobs by rule; the rules pass them to the report, which reads no job's records."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ORDER = (
    "clean_reviews", "split_reviews", "prepare_base", "describe_reviews", "train_expert", "take_expert", "diagnose_members",
    "train_tasks", "merge", "merge_tasks", "mix_experts", "predict", "predict_tasks", "fit_baseline", "blend", "import_predictions", "score", "leaderboard", "compare", "export",
)  # fmt: skip


def taken(results: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of the report's tables ``time`` and ``cluster``.

    Args:
        results: the experiment's folder.
    """
    return {"time": stages(results), "cluster": on_the_cluster(results)}


def stages(results: Path) -> list[dict[str, Any]]:
    """Sum the time and memory of each rule's finished jobs, from Snakemake's benchmark files.

    Args:
        results: the experiment's folder, with ``benchmarks/<rule>.tsv`` or ``benchmarks/<rule>/<name>.tsv``.

    Returns:
        One row per rule, in the order of the workflow: number of jobs, wall-clock seconds of all of them, GPU-hours (hours times
        GPUs), the longest in seconds, the largest resident memory in 10^9 bytes. A killed and resumed job counts with its last attempt.
    """
    found: dict[str, list[tuple[float, float, int]]] = {}
    folder = results / "benchmarks"
    for file in sorted(folder.rglob("*.tsv")):
        if file.stem == "write_report":  # time of the report before this one
            continue
        rule, name = (file.stem, "") if file.parent == folder else (file.parent.name, file.name.removesuffix(".tsv"))
        for row in _rows(file, "\t"):
            found.setdefault(rule, []).append((_number(row["s"]), _number(row["max_rss"]), _gpus(results, rule, name)))
    return [
        {
            "stage": rule, "jobs": len(jobs), "seconds": round(sum(s for s, _, _ in jobs), 1),
            "GPU-hours": round(sum(s * gpus for s, _, gpus in jobs) / 3600, 4),
            "longest (s)": round(max(s for s, _, _ in jobs), 1), "peak GB": round(max(m for _, m, _ in jobs) * 2**20 / 1e9, 2),
        }
        for rule, jobs in sorted(found.items(), key=lambda item: (ORDER.index(item[0]) if item[0] in ORDER else len(ORDER), item[0]))
    ]  # fmt: skip


def on_the_cluster(results: Path) -> list[dict[str, Any]]:
    """Return what each rule's jobs requested from Slurm and used at most; nothing where no job was submitted.

    Source: ``efficiency.csv``, to which each run adds its jobs.
    """
    file = results / "efficiency.csv"
    used: dict[str, list[dict[str, str]]] = {}
    for row in _rows(file, ",") if file.is_file() else []:
        used.setdefault(row["rule"], []).append(row)
    return [
        {
            "rule": rule, "jobs": len(rows), "restarts": int(sum(_number(row["restarts"]) for row in rows)),
            "longest (min)": _most(rows, "seconds", 60, 1), "asked (min)": _most(rows, "requested_minutes"),
            "peak MB": _most(rows, "peak_mb"), "asked MB": _most(rows, "requested_mem_mb"),
        }
        for rule, rows in used.items()
    ]  # fmt: skip


def _rows(file: Path, separator: str) -> Iterable[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines, delimiter=separator))


def _most(rows: list[dict[str, str]], column: str, unit: float = 1, digits: int | None = None) -> float | None:
    """Return a column's largest value; None where no row has one."""
    known = [_number(row[column]) for row in rows if row[column]]
    return round(max(known) / unit, digits) if known else None


def _gpus(results: Path, rule: str, name: str) -> int:
    """Count the GPUs of a job, from its outputs."""
    # A merge uses at most one GPU.
    file, key = {
        "train_expert": (results / f"models/{name}/model.json", "processes"),
        "train_tasks": (next((results / f"models/{name}").glob("*/model.json"), None), "processes"),
        "predict": (results / f"predictions/{name}.cost.json", "gpus"),
        "merge": (results / f"merges/{name}/merge.json", "gpus"),
        "merge_tasks": (results / f"merges/{name}/merge.json", "gpus"),
    }.get(rule, (None, ""))
    if file is None or not file.exists():
        return 0
    facts = json.loads(file.read_text(encoding="utf-8"))
    return 0 if facts.get("device", "cpu") == "cpu" else int(facts.get(key, 1))


def _number(text: str | None) -> float:
    """Read a number of a benchmark file; Snakemake writes NA or - if a job was too short to measure."""
    try:
        return float(text or 0)
    except ValueError:
        return 0.0
