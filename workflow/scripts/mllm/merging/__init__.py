"""Merging: make one checkpoint from members and a recipe. Imports core, experiment, data and models."""
