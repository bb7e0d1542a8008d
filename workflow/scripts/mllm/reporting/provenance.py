"""Report the origin of numbers: software, devices, and the time of each stage."""

import subprocess
from pathlib import Path
from typing import Any

import polars as pl

from mllm.core.files import read_json
from mllm.models.cards import Card, FineTuned, Merge
from mllm.reporting import page_tables

ORDER = (
    "clean_reviews", "split_reviews", "prepare_base", "describe_reviews", "train_expert", "take_expert", "diagnose_members",
    "train_tasks", "merge", "merge_tasks", "mix_experts", "predict", "predict_tasks", "fit_baseline", "blend", "import_predictions", "score", "leaderboard", "compare", "export",
)  # fmt: skip
TIMES = {"stage": pl.String, "jobs": pl.Int64, "seconds": pl.Float64, "GPU-hours": pl.Float64, "longest (s)": pl.Float64, "peak GB": pl.Float64}  # fmt: skip


def stages(results: Path) -> pl.DataFrame:
    """Sum the time and memory of each rule's finished jobs, from Snakemake's benchmark files.

    Args:
        results: the experiment's folder, with ``benchmarks/<rule>.tsv`` or ``benchmarks/<rule>/<name>.tsv``.

    Returns:
        One row per rule, in the order of the workflow: number of jobs, wall-clock seconds of all of them,
        GPU-hours (hours times GPUs), the longest in seconds, the largest resident memory in 10^9 bytes. A job that
        was killed and resumed counts with its last attempt.
    """
    found: dict[str, list[tuple[float, float, int]]] = {}
    folder = results / "benchmarks"
    for file in sorted(folder.rglob("*.tsv")):
        if file.stem == "write_report":  # time of the report before this one
            continue
        rule, name = (file.stem, "") if file.parent == folder else (file.parent.name, file.name.removesuffix(".tsv"))
        for row in pl.read_csv(file, separator="\t", infer_schema=False).to_dicts():
            found.setdefault(rule, []).append((_number(row["s"]), _number(row["max_rss"]), _gpus(results, rule, name)))
    rows = [
        {
            "stage": rule, "jobs": len(jobs), "seconds": round(sum(s for s, _, _ in jobs), 1),
            "GPU-hours": round(sum(s * gpus for s, _, gpus in jobs) / 3600, 4),
            "longest (s)": round(max(s for s, _, _ in jobs), 1), "peak GB": round(max(m for _, m, _ in jobs) * 2**20 / 1e9, 2),
        }
        for rule, jobs in sorted(found.items(), key=lambda item: (ORDER.index(item[0]) if item[0] in ORDER else len(ORDER), item[0]))
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=TIMES)


def on_the_cluster(results: Path) -> pl.DataFrame | None:
    """Return what each rule's jobs requested from Slurm and used at most; None where nothing was submitted.

    Source: ``efficiency.csv``, to which each run appends its jobs.
    """
    file = results / "efficiency.csv"
    if not file.exists():
        return None
    table = pl.read_csv(file, infer_schema_length=None)
    return table.group_by("rule", maintain_order=True).agg(
        pl.len().alias("jobs"),
        pl.col("restarts").sum(),
        (pl.col("seconds").max() / 60).round(1).alias("longest (min)"),
        pl.col("requested_minutes").max().alias("asked (min)"),
        pl.col("peak_mb").max().alias("peak MB"),
        pl.col("requested_mem_mb").max().alias("asked MB"),
    )


def tables(results: Path, cards: dict[str, Card], board: pl.DataFrame) -> list[dict[str, Any]]:
    """Make the page's tables of times, cluster use and software."""
    used = on_the_cluster(results)
    return [
        page_tables.table("Time", stages(results), "time"),
        *([page_tables.table("Asked for and used on the cluster", used, "cluster")] if used is not None else []),
        page_tables.table("Software and hardware", software(results, cards, board), "software"),
    ]


def software(results: Path, cards: dict[str, Card], board: pl.DataFrame) -> pl.DataFrame:
    """Return the project's commit at the time of the report, the models' devices, and the versions that made their weights."""
    names = board.select(pl.coalesce("whole", "candidate").unique().sort()).to_series()
    merges = [results / f"merges/{name}/merge.json" for name in names]
    made = [*cards.values(), *(Merge.read(f) for f in merges if f.exists())]
    versions: dict[str, set[str]] = {}
    for card in made:
        for library, version in sorted(card.versions.items()):
            versions.setdefault(library, set()).add(version)
    devices = sorted(
        {str(d) for d in (*board["device"], *(c.device for c in cards.values() if isinstance(c, FineTuned))) if d}
    )
    facts = {"git commit of the report": _commit(), "devices": ", ".join(devices) or "unknown"}
    facts |= {library: ", ".join(sorted(found)) for library, found in versions.items()}
    return pl.DataFrame({"what": list(facts), "value": [str(v) for v in facts.values()]})


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
    facts = read_json(file)
    return 0 if facts.get("device", "cpu") == "cpu" else int(facts.get(key, 1))


def _number(text: str | None) -> float:
    """Read a number of a benchmark file; Snakemake writes NA or - if a job was too short to measure."""
    try:
        return float(text or 0)
    except ValueError:
        return 0.0


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    except OSError:  # a container may have no git
        return "unknown"
    return done.stdout.strip() or "unknown"
