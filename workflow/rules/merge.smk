# Merges: one job for each recipe; and diagnostics of the members' weights before any merge.
# in:  <results>/models/{base,<expert>}/ and the grid's recipes; train reviews for the routers of mixtures
# out: <results>/merges/<merge>/{mergekit.yaml,merge.json,model/}; the weights are deleted after scoring, unless kept;
#      <results>/diagnostics/members.csv
MERGED = directory("<results>/merges/{merge}/model")
RECIPE = report(
    "<results>/merges/{merge}/mergekit.yaml",
    caption="../report/recipe.rst",
    category="Recipes",
    subcategory=lambda wildcards: GRID.merges[wildcards.merge].method,
    labels=lambda wildcards: {
        "method": GRID.merges[wildcards.merge].method,
        "merge": wildcards.merge,
        "members": " ".join(GRID.merges[wildcards.merge].members),
    },
)
MIXTURES = GRID.made_by("mix_experts")
OVER_TASKS = wholes("merge")


rule merge:
    input:
        base=start_of,
        members=members_of_merge,
    output:
        recipe=RECIPE,
        card="<results>/merges/{merge}/merge.json",
        model=MERGED if EXPERIMENT.keep == "all" else temp(MERGED),
    log:
        "<logs>/merge/{merge}.log",
    benchmark:
        "<benchmarks>/merge/{merge}.tsv"
    wildcard_constraints:
        merge=other_than([*MIXTURES, *OVER_TASKS]),
    threads: 1
    resources:
        # Merges read and write more than they compute. `--set-resources merge:gpu=1` requests a GPU anyway.
        gpu=0,
        gpu_mb=by_attempt(lambda wildcards: needs.merge_gpu_mb(shape(), len(GRID.merges[wildcards.merge].members))),
        mem_mb=by_attempt(lambda wildcards: needs.merge_mb(shape(), len(GRID.merges[wildcards.merge].members))),
        runtime=by_attempt(lambda wildcards: needs.merge_minutes(shape(), len(GRID.merges[wildcards.merge].members))),
    params:
        code=lambda wildcards: merge_code(GRID.merges[wildcards.merge].method),
        mergekit=compute.version("mergekit"),
        recipe=lambda wildcards: json.dumps(GRID.merges[wildcards.merge].canonical()),
        kept=f"{RESULTS}/data/tokens",
    shell:
        "python workflow/scripts/merge.py --recipe {params.recipe:q} --models $(dirname {input.base})"
        " --base $(basename {input.base}) --gpus {resources.gpu} --kept {params.kept} --output $(dirname {output.card}) --log {log}"


# The members' heads differ, so that the backbone is merged without heads, and each task has its own folder.
rule merge_tasks:
    input:
        bases=bases_of_merge,
        members=members_of_merge,
    output:
        recipe=RECIPE,
        card="<results>/merges/{merge}/merge.json",
        model=MERGED if EXPERIMENT.keep == "all" else temp(MERGED),
    log:
        "<logs>/merge_tasks/{merge}.log",
    benchmark:
        "<benchmarks>/merge_tasks/{merge}.tsv"
    wildcard_constraints:
        merge=one_of(OVER_TASKS),
    threads: 1
    resources:
        gpu=0,
        gpu_mb=by_attempt(lambda wildcards: needs.merge_gpu_mb(shape(), len(parents_of(wildcards)))),
        mem_mb=by_attempt(lambda wildcards: needs.merge_mb(shape(), len(parents_of(wildcards)))),
        runtime=by_attempt(lambda wildcards: needs.merge_minutes(shape(), len(parents_of(wildcards)))),
    params:
        code=lambda wildcards: code_digest("merge_tasks", *methods.modules(GRID.merges[wildcards.merge].method)),
        mergekit=compute.version("mergekit"),
        recipe=lambda wildcards: json.dumps(GRID.merges[wildcards.merge].canonical()),
        tasks=lambda wildcards: json.dumps(parts_of_merge(wildcards.merge)),
        models=f"{RESULTS}/models",
        kept=f"{RESULTS}/data/tokens",
    shell:
        "python workflow/scripts/merge_tasks.py --recipe {params.recipe:q} --tasks {params.tasks:q} --models {params.models}"
        " --gpus {resources.gpu} --kept {params.kept} --output $(dirname {output.card}) --log {log}"


rule mix_experts:
    input:
        unpack(reads("train")),
        base=start_of,
        members=members_of_merge,
    output:
        recipe=RECIPE,
        card="<results>/merges/{merge}/merge.json",
        model=MERGED if EXPERIMENT.keep == "all" else temp(MERGED),
    log:
        "<logs>/mix_experts/{merge}.log",
    benchmark:
        "<benchmarks>/mix_experts/{merge}.tsv"
    wildcard_constraints:
        merge=one_of(MIXTURES),
    threads: 1
    resources:
        mem_mb=by_attempt(lambda wildcards: needs.merge_mb(shape(), 2 * len(GRID.merges[wildcards.merge].members))),
        runtime=by_attempt(
            lambda wildcards: needs.merge_minutes(shape(), 2 * len(GRID.merges[wildcards.merge].members))
        ),
    params:
        code=code_digest("mix_experts"),
        reviews=learns,
        mergekit=compute.version("mergekit"),
        recipe=lambda wildcards: json.dumps(GRID.merges[wildcards.merge].canonical()),
    shell:
        "python workflow/scripts/mix_experts.py --recipe {params.recipe:q} --models $(dirname {input.base})"
        " --base $(basename {input.base}) --data $(dirname {input.train}) --output $(dirname {output.card}) --log {log}"


COMPARED = members_by_task()
MEMBERS = [models["members"] for models in COMPARED.values()]


# One job for all tasks, from the members' weights only: its result does not depend on any merge.
rule diagnose_members:
    input:
        [f"{RESULTS}/models/{m}" for models in COMPARED.values() for m in (models["base"], *models["members"])],
    output:
        "<results>/diagnostics/members.csv",
    log:
        "<logs>/diagnose_members.log",
    benchmark:
        "<benchmarks>/diagnose_members.tsv"
    threads: 1
    resources:
        mem_mb=by_attempt(lambda wildcards: needs.merge_mb(shape(), max(map(len, MEMBERS), default=0))),
        runtime=by_attempt(lambda wildcards: needs.merge_minutes(shape(), sum(map(len, MEMBERS)))),
    params:
        code=code_digest("diagnose_members"),
        tasks=json.dumps(COMPARED),
    shell:
        "python workflow/scripts/diagnose_members.py --models $(dirname $(dirname {output}))/models --tasks {params.tasks:q}"
        " --output {output} --log {log}"


# Runs at the end if the experiment keeps its winners; `snakemake export` runs it always.
rule export:
    input:
        leaderboard="<results>/leaderboard.parquet",
        runs="<results>/runs.parquet",
        comparisons="<results>/comparisons.parquet",
        models=expand(
            "<results>/models/{model}", model=[*GRID.bases.values(), *GRID.made_by("train_expert", "take_expert")]
        ),
        cards=expand("<results>/merges/{merge}/merge.json", merge=GRID.merges),
        predictions=expand("<results>/predictions/{merge}.parquet", merge=names("merge")),
        reviews=[*tables("train", "valid", "test").values(), *all_labels()],
        split="<results>/data/split.json",
    output:
        directory("<results>/export"),
    log:
        "<logs>/export.log",
    benchmark:
        "<benchmarks>/export.tsv"
    threads: 1
    resources:
        mem_mb=by_attempt(lambda wildcards: needs.merge_mb(shape(), 2 * len(names("expert")))),
        runtime=by_attempt(60),
    params:
        code=code_digest("export", *sorted({family_code(GRID.starts[base]) for base in GRID.bases.values()})),
        merge=sorted({merge_code(recipe.method, merge in OVER_TASKS) for merge, recipe in GRID.merges.items()}),
        experiment=lambda wildcards: json.dumps(
            {
                "name": EXPERIMENT.name,
                "seed": EXPERIMENT.seed,
                "data": EXPERIMENT.data.model_dump(include={"source", "description"}, exclude_none=True),
                "compare": {"margin": EXPERIMENT.compare.margin},
                "tasks": {t.name: t.model_dump(exclude_none=True) for t in EXPERIMENT.tasks},
            }
        ),
        bases=json.dumps(GRID.bases),
    shell:
        "python workflow/scripts/export.py --results $(dirname {input.leaderboard}) --experiment {params.experiment:q}"
        " --bases {params.bases:q} --threads {threads} --output {output} --log {log}"


DIAGNOSTICS = rules.diagnose_members.output
