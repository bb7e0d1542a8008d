# Predictions of every candidate: models are run, blends combine their members' predictions, baselines are fitted.
# in:  model folders, <results>/data/
# out: <results>/predictions/<candidate>.{parquet,cost.json}
BLENDS = GRID.made_by("blend")  # and routers
FITTED = GRID.made_by("fit_baseline")
PROBES = GRID.made_by("fit_probe")
PARTS = [part.name for name in wholes("merge", "reference") for part in GRID.wholes[name].values()]
TABLES = [*BLENDS, *FITTED, *PROBES, *GRID.imported, *PARTS]  # candidates that rule predict does not make


# Tokens' names have a digest of all that they depend on. Predictions make missing tokens, so the rule only saves GPU time.
rule tokenise:
    input:
        unpack(predict_reads),
        model="<results>/models/{start}",
    output:
        "<results>/data/tokens/{start}.json",
    log:
        "<logs>/tokenise/{start}.log",
    benchmark:
        "<benchmarks>/tokenise/{start}.tsv"
    wildcard_constraints:
        start=one_of(GRID.starts),
    resources:
        mem_mb=by_attempt(lambda wildcards: needs.data_mb(rows())),
        runtime=by_attempt(30),
    params:
        code=lambda wildcards: code_digest("tokenise", family_code(GRID.starts[wildcards.start])),
        task=task_of,
        reviews=learns,
        names=worded,
        seed=EXPERIMENT.seed,
    shell:
        "python workflow/scripts/tokenise.py --model {input.model} --data $(dirname {input.test}) --task {params.task}"
        " {params.names} --seed {params.seed} --output {output} --log {log}"


rule predict:
    input:
        unpack(predict_reads),
        unpack(model_of),
        unpack(tokens_of),
        parents=parents_of,
    output:
        predictions="<results>/predictions/{candidate}.parquet",
        cost="<results>/predictions/{candidate}.cost.json",
    log:
        "<logs>/predict/{candidate}.log",
    benchmark:
        "<benchmarks>/predict/{candidate}.tsv"
    wildcard_constraints:
        candidate=other_than(TABLES),
    resources:
        gpu=gpu,
        gpu_mb=by_attempt(predict_gpu_mb),
        mem_mb=by_attempt(lambda wildcards: needs.predict_mb(shape_of(wildcards))),
        runtime=by_attempt(lambda wildcards: needs.predict_minutes(shape_of(wildcards), rows() // 4)),
    params:
        code=lambda wildcards: code_digest("predict", family_code(candidate_of(wildcards).start)),
        reviews=learns,
        made_as=made_as,
        task=task_of,
        names=worded,
        prompt=asked_otherwise,
        first_layers=first_layers,
        gpus=gpus_of,
        dtype=lambda wildcards: candidate_of(wildcards).start.model.dtype,
        seed=EXPERIMENT.seed,
        shards=f"{RESULTS}/checkpoints/{{candidate}}.predictions",
        tokens=f"{RESULTS}/data/tokens",
    shell:
        "python workflow/scripts/predict.py --model {input.model} --data $(dirname {input.test}) --task {params.task}"
        " {params.names} {params.prompt} {params.first_layers} --gpus {params.gpus} --dtype {params.dtype} --seed {params.seed} --shards {params.shards} --tokens {params.tokens}"
        " --output {output.predictions} --cost {output.cost} --log {log}"


# One job predicts all tasks that a model covers. Outputs must be declared, so that each set of tasks has its own rule.
for number, covers in enumerate(covered_together()):

    rule:
        name:
            several("predict_tasks", number)
        input:
            unpack(task_reads(covers)),
            unpack(whole_model_of),
            parents=parents_of,
        output:
            [
                f"<results>/predictions/{{whole}}.{task}{{run}}.{end}"
                for task in covers
                for end in ("parquet", "cost.json")
            ],
        log:
            f"<logs>/{several('predict_tasks', number)}/{{whole}}{{run}}.log",
        benchmark:
            f"<benchmarks>/{several('predict_tasks', number)}/{{whole}}{{run}}.tsv"
        wildcard_constraints:
            whole=one_of(covered_together()[covers]),
            run=r"(@\d+)?",
        resources:
            gpu=gpu,
            gpu_mb=by_attempt(predict_gpu_mb),
            mem_mb=by_attempt(lambda wildcards: needs.predict_mb(shape_of(wildcards))),
            runtime=by_attempt(
                lambda wildcards: needs.predict_minutes(shape_of(wildcards), passes(wildcards) * rows() // 4)
            ),
        params:
            code=lambda wildcards: code_digest("predict_tasks", family_code(candidate_of(wildcards).start)),
            reviews=learns_together,
            made_as=made_as,
            tasks=lambda wildcards: json.dumps(asked_together(wildcards)),
            data=f"{RESULTS}/data",
            first_layers=first_layers,
            gpus=gpus_of,
            dtype=lambda wildcards: candidate_of(wildcards).start.model.dtype,
            seed=EXPERIMENT.seed,
            shards=f"{RESULTS}/checkpoints/{{whole}}{{run}}.predictions",
            tokens=f"{RESULTS}/data/tokens",
        shell:
            "python workflow/scripts/predict_tasks.py --model {input.model} --data {params.data} --tasks {params.tasks:q}"
            " {params.first_layers} --gpus {params.gpus} --dtype {params.dtype} --seed {params.seed} --shards {params.shards}"
            " --tokens {params.tokens} --log {log}"


rule blend:
    input:
        unpack(reads("valid", "test")),
        predictions=lambda wildcards: members_of(wildcards, "parquet"),
        costs=lambda wildcards: members_of(wildcards, "cost.json"),
    output:
        predictions="<results>/predictions/{candidate}.parquet",
        cost="<results>/predictions/{candidate}.cost.json",
    log:
        "<logs>/blend/{candidate}.log",
    benchmark:
        "<benchmarks>/blend/{candidate}.tsv"
    wildcard_constraints:
        candidate=one_of(BLENDS),
    localrule: True
    params:
        code=code_digest("blend"),
        reviews=learns,
        method=lambda wildcards: candidate_of(wildcards).method,
        where=slices_of,
        task=task_of,
        seed=EXPERIMENT.seed,
    shell:
        "python workflow/scripts/blend.py --method {params.method} {params.where} --predictions {input.predictions:q} --costs {input.costs:q}"
        " --data $(dirname {input.test}) --task {params.task} --seed {params.seed}"
        " --output {output.predictions} --cost {output.cost} --log {log}"


rule fit_baseline:
    input:
        unpack(reads("train", "valid", "test")),
    output:
        predictions="<results>/predictions/{candidate}.parquet",
        cost="<results>/predictions/{candidate}.cost.json",
    log:
        "<logs>/fit_baseline/{candidate}.log",
    benchmark:
        "<benchmarks>/fit_baseline/{candidate}.tsv"
    wildcard_constraints:
        candidate=one_of(FITTED),
    resources:
        mem_mb=by_attempt(lambda wildcards: needs.baseline_mb(rows())),
        runtime=by_attempt(60),
    params:
        code=code_digest("fit_baseline"),
        reviews=learns,
        kind=lambda wildcards: candidate_of(wildcards).method,
        task=task_of,
        seed=EXPERIMENT.seed,
    shell:
        "python workflow/scripts/fit_baseline.py --kind {params.kind} --data $(dirname {input.test})"
        " --task {params.task} --seed {params.seed}"
        " --output {output.predictions} --cost {output.cost} --log {log}"


rule fit_probe:
    input:
        unpack(reads("train", "valid", "test")),
        model=start_of,
    output:
        predictions="<results>/predictions/{candidate}.parquet",
        cost="<results>/predictions/{candidate}.cost.json",
    log:
        "<logs>/fit_probe/{candidate}.log",
    benchmark:
        "<benchmarks>/fit_probe/{candidate}.tsv"
    wildcard_constraints:
        candidate=one_of(PROBES),
    resources:
        gpu=gpu,
        gpu_mb=by_attempt(lambda wildcards: needs.predict_gpu_mb(shape_of(wildcards), 1)),
        mem_mb=by_attempt(lambda wildcards: needs.predict_mb(shape_of(wildcards)) + needs.baseline_mb(rows())),
        runtime=by_attempt(lambda wildcards: 30 + needs.predict_minutes(shape_of(wildcards), rows())),
    params:
        code=lambda wildcards: code_digest("fit_probe", family_code(candidate_of(wildcards).start)),
        reviews=learns,
        task=task_of,
        seed=EXPERIMENT.seed,
    shell:
        "python workflow/scripts/fit_probe.py --model {input.model} --data $(dirname {input.test})"
        " --task {params.task} --seed {params.seed}"
        " --output {output.predictions} --cost {output.cost} --log {log}"
