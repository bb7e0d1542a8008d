"""Checks of the experiment file: one module per section. Nothing that computes imports this room."""
