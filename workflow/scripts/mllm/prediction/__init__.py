"""Prediction: make one log-probability per class and review, with a model or from other predictions.

Imports core, experiment, data and models.
"""
