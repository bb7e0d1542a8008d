"""Merging: from members and a recipe to one checkpoint. Imports core, experiment, data and models."""
