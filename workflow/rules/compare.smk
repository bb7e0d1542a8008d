# From predictions to the leaderboard: CPU only, seconds, no model needed.
# in:  <results>/predictions/, <results>/data/
# out: <results>/scores/<candidate>.json, <results>/leaderboard.{csv,parquet,txt},
#      <results>/comparisons.csv, <results>/experiment.yaml


rule score:
    input:
        predictions="<results>/predictions/{candidate}.parquet",
        split="<results>/data/split.json",
    output:
        "<results>/scores/{candidate}.json",
    log:
        "<logs>/score/{candidate}.log",
    localrule: True
    params:
        code=code_digest("score"),
        statistics=code_digest("clean_reviews"),  # slices follow them, though no training does
        candidate=lambda wildcards: json.dumps(GRID.candidates[wildcards.candidate].label()),
        seed=EXPERIMENT.seed,
    shell:
        "python workflow/scripts/score.py --candidate {params.candidate:q} --predictions {input.predictions}"
        " --data $(dirname {input.split}) --seed {params.seed} --output {output} --log {log}"


# The scores are found by the experiment's own list, not by a command line, which thousands of paths would overflow.
rule leaderboard:
    input:
        expand("<results>/scores/{candidate}.json", candidate=GRID.candidates),
    output:
        table="<results>/leaderboard.csv",
        parquet="<results>/leaderboard.parquet",
        text="<results>/leaderboard.txt",
        comparisons="<results>/comparisons.csv",
        experiment="<results>/experiment.yaml",
    log:
        "<logs>/leaderboard.log",
    localrule: True
    params:
        code=code_digest("leaderboard"),
        experiment=EXPERIMENT.model_dump_json(by_alias=True),
        files=CONFIG_FILES,
        override=json.dumps(OVERRIDE),
    shell:
        "python workflow/scripts/leaderboard.py --experiment {params.files:q} --override {params.override:q}"
        " --results $(dirname {output.table}) --log {log}"


rule grid:
    log:
        "<logs>/grid.log",
    localrule: True
    params:
        files=CONFIG_FILES,
        override=json.dumps(OVERRIDE),
    shell:
        "python workflow/scripts/grid.py --experiment {params.files:q} --override {params.override:q}"


rule report:
    input:
        rules.leaderboard.output,
        rules.describe_reviews.output,
        "<results>/export" if EXPERIMENT.keep == "winners" and GRID.merges else [],
        expand("<results>/merges/{merge}/model", merge=GRID.merges) if EXPERIMENT.keep == "all" else [],
    localrule: True
