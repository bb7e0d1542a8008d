# From raw files to train, validation and test.
# in:  data, split and tasks of the experiment
# out: <results>/data/{reviews,rejected,train,valid,test,statistics}.parquet, quality.json, split.json, summary.csv,
#      repairs.csv, tasks/<task>/{labels.parquet,task.json}, <results>/figures/data/
DATA = EXPERIMENT.data
DOWNLOADED = ["results/downloads/reviews/drugsComTrain_raw.tsv", "results/downloads/reviews/drugsComTest_raw.tsv"]
RAW = {
    "uci": lambda: DOWNLOADED,
    "local": lambda: [f for f in (DATA.train, DATA.test) if f],
    "synthetic": lambda: [f"{RESULTS}/data/raw/train.tsv", f"{RESULTS}/data/raw/test.tsv"],
}[DATA.source]()


MADE_BY = {"synthetic": ["generate_reviews"]}  # source -> scripts that make its raw files
READING = ("repairs", "dates", "quotes")  # keys of data that say how files are read

# Our column -> list of the file's columns, if the experiment maps them.
COLUMNS = {
    ours: [theirs] if isinstance(theirs, str) else theirs
    for ours, theirs in (getattr(DATA, "columns", None) or {}).items()
}


if workflow.is_main_process:
    try:
        look_at_files([Path(f) for f in RAW], COLUMNS or None)
    except Failure as error:
        sys.exit(f"error: {error}")


rule download_reviews:
    output:
        DOWNLOADED,
    log:
        "results/downloads/logs/download_reviews.log",
    retries: 2
    localrule: True
    shell:
        "python workflow/scripts/download_reviews.py --output results/downloads/reviews --log {log}"


if DATA.source == "synthetic":

    rule generate_reviews:
        output:
            train="<results>/data/raw/train.tsv",
            test="<results>/data/raw/test.tsv",
        log:
            "<logs>/generate_reviews.log",
        benchmark:
            "<benchmarks>/generate_reviews.tsv"
        localrule: True
        params:
            code=code_digest("generate_reviews"),
            rows=DATA.rows,
            conditions=DATA.conditions,
            seed=EXPERIMENT.seed,
        shell:
            "python workflow/scripts/generate_reviews.py --rows {params.rows} --conditions {params.conditions}"
            " --seed {params.seed} --train {output.train} --test {output.test} --log {log}"


rule clean_reviews:
    input:
        train=lambda wildcards: RAW[0],
        test=lambda wildcards: RAW[1:],
    output:
        reviews="<results>/data/reviews.parquet",
        rejected="<results>/data/rejected.parquet",
        quality="<results>/data/quality.json",
    log:
        "<logs>/clean_reviews.log",
    benchmark:
        "<benchmarks>/clean_reviews.tsv"
    resources:
        mem_mb=by_attempt(lambda wildcards: needs.data_mb(rows())),
        runtime=by_attempt(30),
    params:
        code=code_digest("clean_reviews"),
        columns=lambda wildcards: f"--columns {shlex.quote(json.dumps(COLUMNS))}" if COLUMNS else "",
        reading=" ".join(f"--{key} {getattr(DATA, key)}" for key in READING if getattr(DATA, key, None)),
        test=lambda wildcards, input: f"--test {shlex.quote(str(input.test))}" if input.test else "",
    shell:
        "python workflow/scripts/clean_reviews.py --train {input.train:q} {params.test} {params.columns} {params.reading}"
        " --reviews {output.reviews} --rejected {output.rejected} --quality {output.quality} --log {log}"


rule split_reviews:
    input:
        "<results>/data/reviews.parquet",
    output:
        train="<results>/data/train.parquet",
        valid="<results>/data/valid.parquet",
        test="<results>/data/test.parquet",
        split="<results>/data/split.json",
    log:
        "<logs>/split_reviews.log",
    benchmark:
        "<benchmarks>/split_reviews.tsv"
    resources:
        mem_mb=by_attempt(lambda wildcards: needs.data_mb(rows())),
        runtime=by_attempt(30),
    params:
        code=code_digest("split_reviews"),
        split=EXPERIMENT.split.model_dump_json(),
        seed=EXPERIMENT.seed,
        stratum=lambda wildcards: (
            f"--stratum {shlex.quote(definition(EXPERIMENT.tasks[0]))}" if EXPERIMENT.split.mode == "random" else ""
        ),
    shell:
        "python workflow/scripts/split_reviews.py --reviews {input} --split {params.split:q}"
        " --seed {params.seed} {params.stratum} --output $(dirname {output.split}) --log {log}"


# Snakemake does not compare parameters that are functions of the input. The job checks the classes' names and the
# experts' slices, but no label depends on them.
rule label_reviews:
    input:
        **by_meaning(tables("train", "valid", "test")),
    output:
        labels="<results>/data/tasks/{task}/labels.parquet",
        facts="<results>/data/tasks/{task}/task.json",
    log:
        "<logs>/label_reviews/{task}.log",
    benchmark:
        "<benchmarks>/label_reviews/{task}.tsv"
    wildcard_constraints:
        task=one_of(task.name for task in EXPERIMENT.tasks),
    resources:
        mem_mb=by_attempt(lambda wildcards: needs.data_mb(rows())),
        runtime=by_attempt(30),
    params:
        code=code_digest("label_reviews"),
        reviews=lambda wildcards: reviews(column_of(EXPERIMENT.task(wildcards.task))),
        definition=lambda wildcards: definition(EXPERIMENT.task(wildcards.task)),
        task=lambda wildcards, input: EXPERIMENT.task(wildcards.task).model_dump_json(exclude_none=True),
        wheres=lambda wildcards, input: wheres(wildcards.task),
    shell:
        "python workflow/scripts/label_reviews.py --data $(dirname {input.train}) --task {params.task:q}"
        " --wheres {params.wheres:q} --log {log}"


rule describe_reviews:
    input:
        reviews="<results>/data/reviews.parquet",
        split="<results>/data/split.json",
        parts=[*tables("train", "valid", "test").values()],
        quality="<results>/data/quality.json",
        model=f"<results>/models/{next(iter(GRID.starts))}",
    output:
        statistics="<results>/data/statistics.parquet",
        summary="<results>/data/summary.csv",
        repairs="<results>/data/repairs.csv",
        figures=report(
            directory("<results>/figures/data"),
            caption="../report/data.rst",
            category="Data",
            labels={"page": "the reviews"},
            htmlindex="index.html",
        ),
    log:
        "<logs>/describe_reviews.log",
    benchmark:
        "<benchmarks>/describe_reviews.tsv"
    threads: 2
    resources:
        mem_mb=by_attempt(lambda wildcards: needs.data_mb(rows())),
        runtime=by_attempt(30),
    params:
        code=code_digest("describe_reviews"),
    shell:
        "python workflow/scripts/describe_reviews.py --data $(dirname {input.split}) --model {input.model}"
        " --statistics {output.statistics} --figures {output.figures} --log {log}"


DESCRIPTION = rules.describe_reviews.output
