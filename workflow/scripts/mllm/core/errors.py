"""Failures that a user can act on."""


class Failure(Exception):
    """Bad input, said in one message for the user: which file, what was found, what to do."""
