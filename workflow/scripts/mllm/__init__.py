"""What the scripts of the workflow share; no script imports another script."""
