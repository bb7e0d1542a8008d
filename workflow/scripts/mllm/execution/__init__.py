"""Execution: Snakemake, Slurm, messages, resources. Imports core and experiment; only rules and profiles import it."""
