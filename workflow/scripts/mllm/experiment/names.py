"""Names in an experiment file, and what they match: experts of an entry with parts, members of a pattern."""

from collections import Counter
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any


def dicts(value: Any) -> list[dict[str, Any]]:
    """Return the entries of a list; an entry that is no map becomes an empty map, so that positions stay correct."""
    return [v if isinstance(v, dict) else {} for v in value] if isinstance(value, list) else []


def names_in(value: Any) -> list[str]:
    return [d["name"] for d in dicts(value) if isinstance(d.get("name"), str)]


def repeated(names: list[str]) -> list[tuple[str, int]]:
    return [(n, c) for n, c in Counter(names).items() if c > 1]


def is_pattern(text: str) -> bool:
    """Return whether a name is a pattern of fnmatch: with ``*``, ``?`` or ``[…]``."""
    return any(c in text for c in "*?[")


def match(patterns: Iterable[str], names: list[str]) -> list[str]:
    """Return the names that the patterns match, in the order of the patterns, then of the names; each once."""
    found = [n for p in patterns for n in (names if is_pattern(p) else [p]) if fnmatchcase(n, p) and n in names]
    return list(dict.fromkeys(found))


def expert_names(raw: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the names of all experts with their entries; an entry with parts has several."""
    result = []
    for entry in dicts(raw.get("experts")):
        name, parts = entry.get("name"), entry.get("parts")
        if not isinstance(name, str):
            continue
        if isinstance(parts, int) and not isinstance(parts, bool):
            result += [(f"{name}-{i}", entry) for i in range(min(parts, 10_000))]
        else:
            result.append((name, entry))
    return result
