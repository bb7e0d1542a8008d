"""Names of the families of models, without importing any of them: every start of Snakemake reads this."""

from pathlib import Path

NAMES = tuple(sorted(p.stem for p in Path(__file__).parents[1].glob("models/families/[a-z]*.py")))
HEADED = "classifier"  # the family with a head for the classes; all others are asked by a prompt
