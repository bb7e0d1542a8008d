# Checkpoints: downloaded, prepared with a head, fine-tuned.
# in:  models, base, experts and references of the experiment; <results>/data/train.parquet
# out: results/downloads/models/<id>/<revision>/, <results>/models/{base,<expert>,<reference>}/


rule download_model:
    output:
        directory("results/downloads/models/{owner}/{model}/{revision}"),
    log:
        "results/downloads/logs/download_model/{owner}/{model}/{revision}.log",
    retries: 2
    localrule: True
    shell:
        "python workflow/scripts/download_model.py --id {wildcards.owner}/{wildcards.model}"
        " --revision {wildcards.revision} --output {output} --log {log}"


rule prepare_base:
    input:
        unpack(checkpoint_of),
        split="<results>/data/split.json",
    output:
        directory("<results>/models/{start}"),
    log:
        "<logs>/prepare_base/{start}.log",
    benchmark:
        "<benchmarks>/prepare_base/{start}.tsv"
    wildcard_constraints:
        start=one_of(GRID.starts),
    threads: 2
    resources:
        gpu=gpu,
        gpu_mb=by_attempt(lambda wildcards: needs.train_gpu_mb(shape(wildcards.start), 32, 128)),
        mem_mb=by_attempt(lambda wildcards: needs.train_mb(shape(wildcards.start), rows())),
        runtime=by_attempt(30),
    params:
        code=lambda wildcards: code_digest(
            "prepare_base",
            family_code(wildcards.start),
            families.maker(EXPERIMENT.model(GRID.starts[wildcards.start]).source),
        ),
        model=lambda wildcards: json.dumps(
            EXPERIMENT.model(GRID.starts[wildcards.start]).model_dump(exclude={"gpus", "dtype"})
        ),
        checkpoint=lambda wildcards, input: f"--checkpoint {input.checkpoint}" if "checkpoint" in input.keys() else "",
        task=task_of,
        seed=EXPERIMENT.seed,
        threads=2,
    shell:
        "python workflow/scripts/prepare_base.py --model {params.model:q} {params.checkpoint}"
        " --data $(dirname {input.split}) --task {params.task} --seed {params.seed} --threads {params.threads} --output {output} --log {log}"


rule take_expert:
    input:
        base=lambda wildcards: f"{RESULTS}/models/{GRID.bases[task_of(wildcards)]}",
        checkpoint=taken_from,
        split="<results>/data/split.json",
    output:
        directory("<results>/models/{expert}"),
    log:
        "<logs>/take_expert/{expert}.log",
    benchmark:
        "<benchmarks>/take_expert/{expert}.tsv"
    wildcard_constraints:
        expert=one_of(GRID.taken),
    resources:
        mem_mb=by_attempt(lambda wildcards: needs.predict_mb(shape(start_of(wildcards.expert)))),
        runtime=by_attempt(30),
    params:
        code=lambda wildcards: code_digest("take_expert", family_code(start_of(wildcards.expert))),
        model=lambda wildcards: json.dumps(EXPERIMENT.model(GRID.taken[wildcards.expert]).model_dump()),
        task=task_of,
    shell:
        "python workflow/scripts/take_expert.py --model {params.model:q} --checkpoint {input.checkpoint} --base {input.base}"
        " --data $(dirname {input.split}) --task {params.task} --output {output} --log {log}"


# Training writes its checkpoints to a path that is no output: Snakemake deletes the outputs of a failed job, and a
# preempted training must go on from there.
rule train_expert:
    input:
        base=lambda wildcards: f"{RESULTS}/models/{GRID.training[wildcards.expert]['start']}",
        split="<results>/data/split.json",
    output:
        directory("<results>/models/{expert}"),
    log:
        "<logs>/train_expert/{expert}.log",
    benchmark:
        "<benchmarks>/train_expert/{expert}.tsv"
    wildcard_constraints:
        expert=one_of(GRID.training),
    threads: gpus_of
    resources:
        gpu=gpu,
        gpu_mb=by_attempt(train_gpu_mb),
        mem_mb=by_attempt(
            lambda wildcards: gpus_of(wildcards) * needs.train_mb(shape(start_of(wildcards.expert)), rows())
        ),
        runtime=by_attempt(
            lambda wildcards: needs.train_minutes(shape(start_of(wildcards.expert)), tokens(wildcards.expert))
        ),
    params:
        code=lambda wildcards: code_digest("train_expert", family_code(start_of(wildcards.expert))),
        part=lambda wildcards: json.dumps(GRID.training[wildcards.expert]["part"]),
        hyper=lambda wildcards: json.dumps(
            {k: v for k, v in GRID.training[wildcards.expert].items() if k in grid.TRAINING_KEYS}
        ),
        task=task_of,
        checkpoints=f"{RESULTS}/checkpoints/{{expert}}",
        gpus=gpus_of,
    shell:
        "python workflow/scripts/train_expert.py --base {input.base} --data $(dirname {input.split})"
        " --task {params.task} --part {params.part:q} --hyper {params.hyper:q} --checkpoints {params.checkpoints}"
        " --gpus {params.gpus} --output {output} --log {log}"
