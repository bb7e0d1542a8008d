"""Use parts of transformers that its next release may change. Written for transformers 5.23.0.

There is one file per use, so that a change of one makes only its own jobs stale. ``tests/test_private.py`` says what to
change if a release renames a name.
"""
