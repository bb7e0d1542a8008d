"""Use parts of mergekit that its next release may change. The code fits mergekit 0.1.5, which pyproject.toml pins.

Seven of the names did not exist one patch release before. Without these names no merge can be made;
``tests/test_private.py`` says what to change. There is one file per use, so that a change for mixtures makes no other
merge stale.
"""
