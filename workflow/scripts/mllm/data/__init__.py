"""Data: from raw files to labelled train, validation and test reviews. Imports core and experiment."""
