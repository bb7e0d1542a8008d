"""Errors that a user can act on."""


class Failure(Exception):
    """An error in the user's input, in one message: ``where: problem (found X, expected Y). Fix: …``."""
