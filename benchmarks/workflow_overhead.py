"""Time the project's overhead over Snakemake: 300 merges and predictions with empty scripts, against a plain workflow.

    .venv/bin/python benchmarks/workflow_overhead.py [POINTS]

Scripts only write empty files. Both workflows have the same files, logs and benchmark files, and start the same scripts
cold, one at a time, with the greedy scheduler. Start is a dry run. Job is the run's time beyond the start, divided by
its jobs. Figures are processor seconds of all processes; the best of two runs in turn.
"""

import resource
import shutil
import sys
import tempfile
from pathlib import Path

import points

RUNS = 2
PLAIN = ["--snakefile", "plain.smk", "--workflow-profile", "none", "--scheduler", "greedy"]
STUB = """
import sys
from pathlib import Path
options = dict(zip(sys.argv[1:], sys.argv[2:]))
at = Path(options["--output"])
if "--recipe" in options:
    (at / "model").mkdir(parents=True, exist_ok=True)
    made = [at / "mergekit.yaml", at / "merge.json"]
else:
    made = [at, Path(options["--cost"])]
for file in made:
    file.touch()
"""
RULES = """
rule all:
    input: {files}
rule merge:
    input: base="results/points/models/base-sentiment", members={members}
    output: recipe="results/points/merges/{{m}}/mergekit.yaml", card="results/points/merges/{{m}}/merge.json", model=temp(directory("results/points/merges/{{m}}/model"))
    log: "results/points/logs/merge/{{m}}.log"
    benchmark: "results/points/benchmarks/merge/{{m}}.tsv"
    shell: "python workflow/scripts/merge.py --recipe x --output $(dirname {{output.card}}) --log {{log}}"
rule predict:
    input: model="results/points/merges/{{m}}/model", test="results/points/data/test.parquet"
    output: predictions="results/points/predictions/{{m}}.parquet", cost="results/points/predictions/{{m}}.cost.json"
    log: "results/points/logs/predict/{{m}}.log"
    benchmark: "results/points/benchmarks/predict/{{m}}.tsv"
    shell: "python workflow/scripts/predict.py --model {{input.model}} --output {{output.predictions}} --cost {{output.cost}} --log {{log}}"
"""


def main(number: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        made = points.prepare(Path(scratch, "made"), number, "tiny")
        files = points.predictions(made)
        for script in ("merge", "predict"):
            (made / f"workflow/scripts/{script}.py").write_text(STUB)
        members = [str(p.relative_to(made)) for p in sorted((made / points.RESULTS / "models").glob("shard-*"))]
        (made / "plain.smk").write_text(RULES.format(files=files, members=members))
        ways = {"plain": PLAIN, "MLLM": files}
        measured: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for _ in range(RUNS):
            for way, arguments in ways.items():
                measured[way].append(used(made, arguments))
    print(f"{number} merges and predictions   start, s   a job, ms")
    best = {way: [min(seconds) for seconds in zip(*runs, strict=True)] for way, runs in measured.items()}
    table = {way: (start, (whole - start) / number / 2 * 1000) for way, (start, whole) in best.items()}
    table["MLLM adds"] = (table["MLLM"][0] - table["plain"][0], table["MLLM"][1] - table["plain"][1])
    for way, (start, job) in table.items():
        print(f"{way:<28}{start:>12.2f}{job:>12.1f}")


def used(made: Path, arguments: list[str]) -> tuple[float, float]:
    """Return processor seconds of a dry run and of a run, without earlier results."""
    results = made / points.RESULTS
    for folder in (results / "merges", results / "predictions", results / "benchmarks"):
        shutil.rmtree(folder, ignore_errors=True)
    found = []
    for more in (["-n"], []):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        points.snakemake(made, *arguments, "--cores", "1", *more, MLLM_COLD="1")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return found[0], found[1]


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
