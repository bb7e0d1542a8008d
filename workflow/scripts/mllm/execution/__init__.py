"""Execution: Snakemake, Slurm, log format and resources. Imports core and experiment; only rules and profiles import it."""
