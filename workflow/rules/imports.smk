# Predictions that were made elsewhere, instead of reviews and models.
# in:  the tables of the experiment's candidates
# out: <results>/predictions/<candidate>.{parquet,cost.json}, <results>/data/{valid,test}.parquet, split.json, tasks/<task>/
DESCRIPTION = DIAGNOSTICS = []


rule import_predictions:
    input:
        lambda wildcards: [str(path) for path in GRID.imported.values()],
    output:
        expand("<results>/predictions/{candidate}.{ending}", candidate=GRID.imported, ending=["parquet", "cost.json"]),
        [*tables("valid", "test").values(), *all_labels()],
        split="<results>/data/split.json",
    log:
        "<logs>/import_predictions.log",
    benchmark:
        "<benchmarks>/import_predictions.tsv"
    localrule: True
    params:
        code=code_digest("import_predictions"),
        experiment=lambda wildcards: json.dumps(
            {
                "candidates": EXPERIMENT.candidates.model_dump(),
                "tasks": [t.model_dump(exclude={"prompt"}) for t in EXPERIMENT.tasks],
                "split": EXPERIMENT.split.model_dump(),
                "seed": EXPERIMENT.seed,
            }
        ),
        files=lambda wildcards, input: CONFIG_FILES,
        override=lambda wildcards, input: json.dumps(OVERRIDE),
    shell:
        "python workflow/scripts/import_predictions.py --experiment {params.files:q} --override {params.override:q}"
        " --results $(dirname $(dirname {output.split})) --log {log}"


rule export:
    log:
        "<logs>/export.log",
    localrule: True
    shell:
        "echo 'error: export: no model, since these predictions were made elsewhere. Fix: run snakemake report'"
        " | tee {log} >&2; exit 1"
