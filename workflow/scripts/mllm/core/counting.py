"""Count nouns in words. Results are written with it, unlike with ``wording``, so an edit reruns the jobs that write them."""


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 claim``, ``1,200 claims``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
