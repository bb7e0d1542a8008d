# From predictions to the verdict: CPU only, no model needed.
# in:  <results>/predictions/, <results>/data/
# out: <results>/scores/, <results>/leaderboard.{csv,parquet,txt}, <results>/experiment.yaml,
#      <results>/{comparisons,selection,agreement,parts}.{csv,parquet}, <results>/verdict.md; where models cover several
#      tasks, <results>/{tasks,tasks_comparisons}.{csv,parquet}
#
# One job scores all candidates: it draws the resamples once, and paired comparisons need the same resamples for all.
# Scripts find the candidates in the experiment file, since thousands of paths would overflow a command line.
# Snakemake does not compare parameters that are functions of the input, so that a moved experiment file reruns nothing.
EXPERIMENT_FILE = {
    "files": lambda wildcards, input: CONFIG_FILES,
    "override": lambda wildcards, input: json.dumps(OVERRIDE),
}
MEANING = hashlib.sha256(
    EXPERIMENT.model_dump_json(by_alias=True, exclude_defaults=True, exclude={"data": {"description"}}).encode()
).hexdigest()[:16]
LABELS = json.dumps([c.label() for c in GRID.candidates.values()])


COMPARISONS = ["comparisons", "selection", "agreement", "parts"]
COMPARISONS += ["tasks", "tasks_comparisons"] if GRID.wholes else []  # models over several tasks


rule score:
    input:
        predictions=expand("<results>/predictions/{candidate}.parquet", candidate=GRID.candidates),
        reviews=[*tables("valid", "test").values(), *all_labels()],
    output:
        directory("<results>/scores"),
    log:
        "<logs>/score.log",
    benchmark:
        "<benchmarks>/score.tsv"
    threads: 2
    resources:
        mem_mb=by_attempt(
            lambda wildcards: needs.score_mb(rows(), len(GRID.candidates), needs.classes_of(EXPERIMENT.tasks))
        ),
        runtime=by_attempt(lambda wildcards: needs.score_minutes(rows(), len(GRID.candidates))),
    params:
        **EXPERIMENT_FILE,
        code=code_digest("score"),
        candidates=hashlib.sha256(LABELS.encode()).hexdigest()[:16],
        tasks=lambda wildcards: json.dumps(
            [task.model_dump(exclude_none=True, exclude={"prompt"}) for task in EXPERIMENT.tasks]
        ),
        seed=EXPERIMENT.seed,
    shell:
        "python workflow/scripts/score.py --experiment {params.files:q} --override {params.override:q}"
        " --results $(dirname {output}) --threads {threads} --output {output} --log {log}"


rule leaderboard:
    input:
        "<results>/scores",
        expand("<results>/predictions/{candidate}.cost.json", candidate=GRID.candidates),
    output:
        table=report(
            "<results>/leaderboard.csv",
            caption="../report/leaderboard.rst",
            category="Leaderboard",
            labels={"table": "leaderboard"},
        ),
        parquet="<results>/leaderboard.parquet",
        runs=expand("<results>/runs.{ending}", ending=["csv", "parquet"]),
        text="<results>/leaderboard.txt",
        experiment="<results>/experiment.yaml",
    log:
        "<logs>/leaderboard.log",
    benchmark:
        "<benchmarks>/leaderboard.tsv"
    localrule: True
    params:
        **EXPERIMENT_FILE,
        code=code_digest("leaderboard"),
        experiment=MEANING,
    shell:
        "python workflow/scripts/leaderboard.py --experiment {params.files:q} --override {params.override:q}"
        " --results $(dirname {output.table}) --log {log}"


rule compare:
    input:
        leaderboard="<results>/leaderboard.parquet",
        runs="<results>/runs.parquet",
        scores="<results>/scores",
        reviews=[*tables("test").values(), *all_labels()],
        split="<results>/data/split.json",
    output:
        [
            report(
                f"<results>/{table}.csv",
                caption="../report/comparisons.rst",
                category="Comparisons",
                labels={"table": table},
            )
            for table in COMPARISONS
        ],
        expand("<results>/{table}.parquet", table=COMPARISONS),
        verdict="<results>/verdict.md",
    log:
        "<logs>/compare.log",
    benchmark:
        "<benchmarks>/compare.tsv"
    localrule: True
    params:
        **EXPERIMENT_FILE,
        code=code_digest("compare"),
        experiment=MEANING,
    shell:
        "python workflow/scripts/compare.py --experiment {params.files:q} --override {params.override:q}"
        " --results $(dirname {output.verdict}) --log {log}"


rule grid:
    log:
        "<logs>/grid.log",
    localrule: True
    params:
        **EXPERIMENT_FILE,
    shell:
        "python workflow/scripts/grid.py --experiment {params.files:q} --override {params.override:q}"


rule plan:
    log:
        "<logs>/plan.log",
    localrule: True
    params:
        **EXPERIMENT_FILE,
        results=RESULTS,
        reviews=lambda wildcards: rows(),
    shell:
        "python workflow/scripts/plan.py --experiment {params.files:q} --override {params.override:q}"
        " --results {params.results} --reviews {params.reviews}"


rule prune:
    log:
        "<logs>/prune.log",
    localrule: True
    params:
        **EXPERIMENT_FILE,
        delete="--delete" if DELETE else "",
    shell:
        "python workflow/scripts/prune.py --experiment {params.files:q} --override {params.override:q} {params.delete}"


rule write_report:
    input:
        # Without a name: for a named list beside other rules' outputs, Snakemake's time is quadratic in its length.
        expand("<results>/merges/{merge}/{file}", merge=GRID.merges, file=["mergekit.yaml", "merge.json"]),
        scores="<results>/scores",
        leaderboard=rules.leaderboard.output,
        tables=rules.compare.output,
        described=DESCRIPTION,
        models=expand(
            "<results>/models/{model}",
            model=[*GRID.made_by("train_expert", "take_expert"), *TRAINED_TASKS, *GRID.starts],
        ),
        reviews=[*tables("test").values(), *all_labels()],
        split="<results>/data/split.json",
    output:
        report(
            directory("<results>/report"),
            patterns=["{figure}.html", "figures/{figure}.svg"],
            caption="../report/figures.rst",
            category="Report",
            labels={"figure": "{figure}"},
        ),
    log:
        "<logs>/write_report.log",
    benchmark:
        "<benchmarks>/write_report.tsv"
    localrule: True
    params:
        **EXPERIMENT_FILE,
        code=code_digest("write_report"),
        description=EXPERIMENT.data.description or "",
        template=hashlib.sha256((SCRIPTS / "mllm/reporting/page.html").read_bytes()).hexdigest()[:16],
        experiment=MEANING,
        taken=what_jobs_took,
    shell:
        "python workflow/scripts/write_report.py --experiment {params.files:q} --override {params.override:q}"
        " --results $(dirname {output}) --taken {params.taken:q} --output {output} --log {log}"


rule report:
    input:
        rules.write_report.output,
        rules.leaderboard.output,
        rules.compare.output,
        DESCRIPTION,
        DIAGNOSTICS,
        "<results>/export" if EXPERIMENT.keep == "winners" and GRID.merges else [],
        expand("<results>/merges/{merge}/model", merge=GRID.merges) if EXPERIMENT.keep == "all" else [],
    localrule: True
