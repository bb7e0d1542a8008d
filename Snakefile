# Merge of Large Language Models: from raw reviews to a leaderboard of merges.
#
#   snakemake -n                                    what would run, and why
#   snakemake grid                                  all grid points and their states
#   snakemake plan                                  what the experiment's number of test texts can show, before training
#   snakemake                                       run the default experiment here; --profile slurm: on a cluster
#   … --configfile config/demo.yaml                 another experiment
#   snakemake experts                               run up to a stage: data, experts, merges, predictions, report
#
# One experiment is one file in config/; its results go to results/<name>/.
from snakemake.utils import min_version

min_version("9.20")


include: "workflow/rules/common.smk"


for part in PARTS:

    include: f"workflow/rules/{part}.smk"


rule all:
    default_target: True
    input:
        rules.report.input,


rule data:
    input:
        all_labels(),
        DESCRIPTION,


rule experts:
    input:
        expand("<results>/models/{expert}", expert=GRID.made_by("train_expert", "take_expert")),


rule merges:
    input:
        expand("<results>/merges/{merge}/model", merge=GRID.merges),


rule predictions:
    input:
        expand("<results>/predictions/{candidate}.parquet", candidate=GRID.candidates),


onstart:
    start_run()


onsuccess:
    print(farewell())


onerror:
    print(interrupts.MESSAGE if interrupts.stopped() else FAILED)
