"""Names and patterns under ``members``, as they are written."""

from fnmatch import fnmatchcase
from typing import Any

from mllm.core.wording import listed, nearest
from mllm.experiment.names import match, repeated


def member_problems(patterns: Any, allowed: list[str]) -> tuple[list[str], list[str]]:
    """The members that the patterns stand for, and what is wrong with the patterns."""
    if not isinstance(patterns, list) or not all(isinstance(p, str) for p in patterns) or not allowed:
        return [], []  # no list of names, or nothing known to compare them with: told elsewhere
    problems = [
        f"members: {p!r} matches none of {listed(allowed)}{nearest(p, allowed)}"
        for p in patterns
        if not any(fnmatchcase(n, p) for n in allowed)
    ]
    problems += [f"members: {p!r} occurs {count} times" for p, count in repeated(patterns)]
    return match(patterns, allowed), problems
