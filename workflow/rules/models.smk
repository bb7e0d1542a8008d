# Checkpoints: downloaded, prepared with a head, fine-tuned.
# in:  models, base, experts and references of the experiment; <results>/data/{train,valid}.parquet, tasks/<task>/
# out: results/downloads/models/<id>/<revision>/, <results>/models/{base-<task>,<expert>,<reference>}/


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
        unpack(reads()),
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
        gpu=lambda wildcards: gpu(wildcards) if pretrained_here(wildcards) else 0,
        gpu_mb=by_attempt(
            lambda wildcards: (
                needs.train_gpu_mb(shape(GRID.starts[wildcards.start]), 32, 128) if pretrained_here(wildcards) else 0
            )
        ),
        mem_mb=by_attempt(lambda wildcards: needs.train_mb(shape(GRID.starts[wildcards.start]), rows())),
        runtime=by_attempt(30),
    params:
        code=lambda wildcards: code_digest(
            "prepare_base",
            family_code(GRID.starts[wildcards.start]),
            families.maker(GRID.starts[wildcards.start].model.source),
        ),
        model=lambda wildcards: GRID.starts[wildcards.start].model.model_dump_json(exclude={"gpus", "dtype"}),
        checkpoint=lambda wildcards, input: (
            f"--checkpoint {shlex.quote(input.checkpoint)}" if "checkpoint" in input.keys() else ""
        ),
        reviews=learns,
        task=task_of,
        seed=EXPERIMENT.seed,
        data=f"{RESULTS}/data",
        threads=2,
    shell:
        "python workflow/scripts/prepare_base.py --model {params.model:q} {params.checkpoint}"
        " --data {params.data} --task {params.task} --seed {params.seed} --threads {params.threads} --output {output} --log {log}"


rule take_expert:
    input:
        unpack(reads()),
        unpack(base_to_fit),
        checkpoint=taken_from,
    output:
        directory("<results>/models/{expert}"),
    log:
        "<logs>/take_expert/{expert}.log",
    benchmark:
        "<benchmarks>/take_expert/{expert}.tsv"
    wildcard_constraints:
        expert=one_of(GRID.made_by("take_expert")),
    resources:
        mem_mb=by_attempt(lambda wildcards: needs.predict_mb(shape_of(wildcards))),
        runtime=by_attempt(30),
    params:
        code=lambda wildcards: code_digest("take_expert", family_code(candidate_of(wildcards).start)),
        model=lambda wildcards: candidate_of(wildcards).taken.model_dump_json(),
        reviews=learns,
        task=task_of,
        names=lambda wildcards: (
            f"--names {shlex.quote(json.dumps(list(words)))}"
            if (words := EXPERIMENT.task(task_of(wildcards)).classes)
            else ""
        ),
        labels=lambda wildcards: (
            f"--labels {shlex.quote(json.dumps(said))}" if (said := candidate_of(wildcards).labels) else ""
        ),
        base=lambda wildcards, input: f"--base {input.base}" if "base" in input.keys() else "",
        data=f"{RESULTS}/data",
    shell:
        "python workflow/scripts/take_expert.py --model {params.model:q} --checkpoint {input.checkpoint:q} {params.base}"
        " --data {params.data} --task {params.task} {params.names} {params.labels} --output {output} --log {log}"


# Training writes its checkpoints to a path that is no output: Snakemake deletes the outputs of a failed job, but a
# preempted training must resume from its checkpoints.
rule train_expert:
    input:
        unpack(reads("train", "valid")),
        base=start_of,
    output:
        directory("<results>/models/{expert}"),
    log:
        "<logs>/train_expert/{expert}.log",
    benchmark:
        "<benchmarks>/train_expert/{expert}.tsv"
    wildcard_constraints:
        expert=one_of(GRID.made_by("train_expert")),
    threads: gpus_of
    resources:
        gpu=gpu,
        gpu_mb=by_attempt(train_gpu_mb),
        mem_mb=by_attempt(train_mb),
        runtime=by_attempt(lambda wildcards: needs.train_minutes(shape_of(wildcards), tokens(candidate_of(wildcards)))),
    params:
        code=lambda wildcards: code_digest("train_expert", family_code(candidate_of(wildcards).start)),
        reviews=learns,
        part=lambda wildcards: json.dumps(candidate_of(wildcards).part),
        hyper=lambda wildcards: json.dumps(candidate_of(wildcards).hyper),
        task=task_of,
        names=worded,
        checkpoints=f"{RESULTS}/checkpoints/{{expert}}",
        same=trained_alike,
        gpus=gpus_of,
    shell:
        "python workflow/scripts/train_expert.py --base {input.base} --data $(dirname {input.train})"
        " --task {params.task} {params.names} --part {params.part:q} --hyper {params.hyper:q} --checkpoints {params.checkpoints}"
        " {params.same} --gpus {params.gpus} --output {output} --log {log}"


# One job for all tasks: its folder has a folder for each task, and these share their backbone's file.
rule train_tasks:
    input:
        unpack(reads_tasks("train", "valid")),
        bases=lambda wildcards: [f"{RESULTS}/models/{start}" for start in starts_of_tasks(wildcards).values()],
    output:
        directory("<results>/models/{whole}"),
    log:
        "<logs>/train_tasks/{whole}.log",
    benchmark:
        "<benchmarks>/train_tasks/{whole}.tsv"
    wildcard_constraints:
        whole=one_of(TRAINED_TASKS),
    threads: gpus_of
    resources:
        gpu=gpu,
        gpu_mb=by_attempt(train_gpu_mb),
        mem_mb=by_attempt(train_mb),
        runtime=by_attempt(lambda wildcards: needs.train_minutes(shape_of(wildcards), tokens(candidate_of(wildcards)))),
    params:
        code=lambda wildcards: code_digest("train_tasks", family_code(candidate_of(wildcards).start)),
        reviews=learns_tasks,
        parts=lambda wildcards: json.dumps(candidate_of(wildcards).part["tasks"]),
        hyper=lambda wildcards: json.dumps(candidate_of(wildcards).hyper),
        bases=lambda wildcards: json.dumps(starts_of_tasks(wildcards)),
        names=worded_tasks,
        checkpoints=f"{RESULTS}/checkpoints/{{whole}}",
        same=trained_alike,
        gpus=gpus_of,
    shell:
        "python workflow/scripts/train_tasks.py --models $(dirname {output}) --bases {params.bases:q} --data $(dirname {input.train})"
        " {params.names} --parts {params.parts:q} --hyper {params.hyper:q} --checkpoints {params.checkpoints}"
        " {params.same} --gpus {params.gpus} --output {output} --log {log}"
