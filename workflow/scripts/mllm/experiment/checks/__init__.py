"""Checks of the experiment file: one module per section. No job's code imports this room."""
