"""Models: checkpoints, families, tokens, prompts, training. Imports core, experiment and data."""
