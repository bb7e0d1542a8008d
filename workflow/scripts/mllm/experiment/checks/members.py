"""Check the names and patterns under ``members``."""

from fnmatch import fnmatchcase
from typing import Any

from mllm.core.wording import listed, nearest
from mllm.experiment.names import match, repeated


def member_problems(patterns: Any, allowed: list[str]) -> tuple[list[str], list[str]]:
    """Return the members that the patterns match, and the patterns' problems."""
    if not isinstance(patterns, list) or not all(isinstance(p, str) for p in patterns) or not allowed:
        return [], []  # no list of names, or nothing to compare them with: other checks report it
    problems = [
        f"members: {p!r} matches none of {listed(allowed)}{nearest(p, allowed)}"
        for p in patterns
        if not any(fnmatchcase(n, p) for n in allowed)
    ]
    problems += [f"members: {p!r} occurs {count} times" for p, count in repeated(patterns)]
    return match(patterns, allowed), problems
