"""Parts of transformers that it does not promise to the next release. Written for transformers 5.23.0.

One file per use, so that a change of one makes only its own jobs stale. ``tests/test_private.py`` says what to change where a
release renames a name.
"""
