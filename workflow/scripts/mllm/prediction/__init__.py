"""Prediction: from a model, or from other predictions, to one log-probability per class and review. Imports core, experiment, data and models."""
