"""Names of the families of models. Importing this imports no family, since every start of Snakemake needs it."""

from pathlib import Path

NAMES = tuple(sorted(p.stem for p in Path(__file__).parents[1].glob("models/families/[a-z]*.py")))
HEADED = "classifier"  # the family with a head for the classes; all others answer a prompt
