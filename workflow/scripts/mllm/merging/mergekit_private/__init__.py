"""mergekit's parts that it promises to no next release. Written for mergekit 0.1.5, which pyproject.toml pins exactly.

Seven of the names did not exist one patch release before. Without them no merge can be made; ``tests/test_private.py`` says what
to change. One file per use, so that a change for mixtures makes no other merge stale.
"""
