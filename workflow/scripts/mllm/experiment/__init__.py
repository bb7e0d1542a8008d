"""Experiment: the experiment file, its checks, its recipes and its grid. Imports core; never torch or mergekit."""
