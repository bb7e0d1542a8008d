# One recipe, one merge, one fresh process.
# in:  <results>/models/{base,<expert>}/ and the grid's recipes
# out: <results>/merges/<merge>/{mergekit.yaml,merge.json,model/}; the weights go once they are scored, unless kept
MERGED = directory("<results>/merges/{merge}/model")


rule merge:
    input:
        base=lambda wildcards: f"{RESULTS}/models/{GRID.bases[GRID.candidates[wildcards.merge].task]}",
        members=lambda wildcards: [f"{RESULTS}/models/{m}" for m in GRID.merges[wildcards.merge].members],
    output:
        recipe="<results>/merges/{merge}/mergekit.yaml",
        card="<results>/merges/{merge}/merge.json",
        model=MERGED if EXPERIMENT.keep == "all" else temp(MERGED),
    log:
        "<logs>/merge/{merge}.log",
    resources:
        mem_mb=by_attempt(lambda wildcards: needs.merge_mb(shape(), len(GRID.merges[wildcards.merge].members))),
        runtime=by_attempt(lambda wildcards: needs.merge_minutes(shape(), len(GRID.merges[wildcards.merge].members))),
    params:
        code=code_digest("merge"),
        mergekit=machine.version("mergekit"),
        recipe=lambda wildcards: json.dumps(GRID.merges[wildcards.merge].canonical()),
    shell:
        "python workflow/scripts/merge.py --recipe {params.recipe:q} --models $(dirname {input.base})"
        " --base $(basename {input.base}) --output $(dirname {output.card}) --log {log}"


rule keep_winners:
    input:
        leaderboard="<results>/leaderboard.parquet",
        models=expand("<results>/models/{model}", model=[*GRID.bases.values(), *names("expert")]),
        cards=expand("<results>/merges/{merge}/merge.json", merge=GRID.merges),
    output:
        directory("<results>/winners"),
    log:
        "<logs>/keep_winners.log",
    resources:
        mem_mb=by_attempt(lambda wildcards: needs.merge_mb(shape(), len(names("expert")))),
        runtime=by_attempt(60),
    params:
        code=code_digest("keep_winners"),
        merge=code_digest("merge"),
        folders=lambda wildcards: [f"{RESULTS}/merges", f"{RESULTS}/models"],
        bases=json.dumps(GRID.bases),
    shell:
        "python workflow/scripts/keep_winners.py --leaderboard {input.leaderboard} --merges {params.folders[0]}"
        " --models {params.folders[1]} --bases {params.bases:q} --output {output} --log {log}"
