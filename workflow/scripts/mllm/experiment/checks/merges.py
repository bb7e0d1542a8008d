"""Check the merge entries of an experiment file, on unchecked values."""

import contextlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mllm.core.wording import listed
from mllm.experiment import over_tasks
from mllm.experiment.checks import over_tasks as checked_tasks
from mllm.experiment.layered import is_layered
from mllm.experiment.merge_entries import METHODS
from mllm.experiment.mixture_architectures import MIXTURES
from mllm.experiment.names import dicts
from mllm.experiment.task_vector_entries import MergeEntry

# Methods whose agreeing members differ from entry to entry, so that a sum of weights can vanish anywhere.
ELECTING = ("ties", "dare_ties", "della", "breadcrumbs_ties")


def merge_problems(entry: dict[str, Any], task_of: Mapping[str, Any], tasks: list[str]) -> list[str]:
    """Return one line for each key of a merge entry that does not fit with its members or with another key.

    Args:
        entry: merge entry as written.
        task_of: expert -> task, for all experts.
        tasks: names of the experiment's tasks.
    """
    method = METHODS.get(entry["method"]) if isinstance(entry.get("method"), str) else None
    members, problems = checked_tasks.chosen(entry.get("members"), task_of, tasks)
    if method is None or not members or problems:
        return problems
    fewest, most = method.count
    if most and not fewest <= len(members) <= most:
        expected = f"exactly {fewest}" if most == fewest else f"{fewest} to {most}"
        problems.append(f"members: {entry['method']} takes {expected}, found {len(members)}: {listed(members)}")
    elif len(members) < fewest:
        problems.append(f"members: found only {members[0]!r}, expected at least {fewest} experts")
    mine = {m: task_of[m] for m in members}
    maps = [_map_problems(entry, key, mine) for key in entry if key not in ("method", "members")]
    problems += [p for found in maps for p in found]
    return problems or _values_over_tasks(method, _by_member(entry, mine), mine)


def moe_problems(raw: dict[str, Any]) -> list[str]:
    """Return a problem for each mixture of experts that the base's architecture does not allow.

    The architecture is known beforehand for a base from scratch or from a local folder.
    """
    base = next((m for m in dicts(raw.get("models")) if m.get("name") == raw.get("base")), {})
    found = base.get("architecture", "gpt2") if base.get("source") == "scratch" else None
    if base.get("source") == "local" and isinstance(base.get("path"), str):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            found = json.loads(Path(base["path"], "config.json").read_text(encoding="utf-8")).get("model_type")
    possible = [mixture.model_type for mixture in MIXTURES]
    if found is None or found in possible:
        return []
    return [
        f"merges[{i}].method: moe needs a base of type {listed(possible)}, found {found!r}."
        " Fix: blend the experts' predictions"
        for i, entry in enumerate(dicts(raw.get("merges")))
        if entry.get("method") == "moe"
    ]


def _map_problems(entry: dict[str, Any], key: str, mine: Mapping[str, Any]) -> Iterator[str]:
    """Yield a problem for each map of member to value that omits a member (or its task), or names anything else."""
    members = list(mine)
    for where, value in _points(entry, key):
        if isinstance(value, dict) and not is_layered(value):
            unknown = [m for m in value if m not in members and m not in mine.values()]
            missing = [m for m in members if m not in value and mine[m] not in value]
            if unknown:
                yield (f"{where}: names {', '.join(map(repr, unknown))}, not among the members {', '.join(members)}"
                       f" (a value that changes with depth has the keys layers and rest)")  # fmt: skip
            elif missing:
                yield f"{where}: gives no {key} for {', '.join(missing)}, expected a value for every member"


def _by_member(entry: dict[str, Any], mine: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry with maps of members instead of tasks."""
    return {
        key: [over_tasks.by_member(v, mine) for v in value]
        if isinstance(value, list)
        else over_tasks.by_member(value, mine)
        for key, value in entry.items()
        if key != "members"
    }


def _values_over_tasks(method: type[MergeEntry], entry: dict[str, Any], mine: Mapping[str, Any]) -> list[str]:
    """Return problems of values that are invalid for all members, or for those of one task, whose heads merge alone."""
    tasks = sorted({str(task) for task in mine.values()})
    groups = [list(mine), *([m for m in mine if str(mine[m]) == task] for task in tasks if len(tasks) > 1)]
    found = [_value_problems(method, entry, group) for group in groups if len(group) > 1 or group == list(mine)]
    return list(dict.fromkeys(problem for problems in found for problem in problems))


def _value_problems(method: type[MergeEntry], entry: dict[str, Any], members: list[str]) -> list[str]:
    """Return problems of values that mergekit accepts but that are invalid, alone or together."""
    name, problems = entry["method"], []
    for where, weight in _points(entry, "weight", 1.0):
        problems += [f"{where}: {p}" for p in _weight_problems(name, entry, weight, members)]
    pairs = {"gamma": 0.01, "epsilon": 0.15}
    for key, default in pairs.items():
        if "density" in method.model_fields and key in method.model_fields:
            problems += _density_problems(entry, key, default, members)
    if name == "ties" and "paper" in [c for _, c in _points(entry, "convention", "mergekit")]:
        problems += [
            f"{where}: changes with depth, but convention: paper trims the complete task vector by one threshold"
            for where, value in _points(entry, "density")
            if len(_depths(value)) > 1
        ]
    if name == "moe":
        problems += [
            f"{where}: found {value}, expected at most {len(members)}, since there are {len(members)} members"
            for where, value in _points(entry, "experts_per_token", 2)
            if isinstance(value, int) and value > len(members)
        ]
    return problems


def _weight_problems(name: str, entry: dict[str, Any], weight: Any, members: list[str]) -> list[str]:
    dividing = {"linear": "normalize", "multislerp": "normalize_weights", "nuslerp": None}
    default = name in ("ties", "della")
    key = dividing.get(name, "normalize")
    normalized = key is None or True in [v for _, v in _points(entry, key, name in dividing or default)]
    vectors = [[_at(weight, m, i) for m in members] for i in _depths(weight)]
    if not normalized or not all(_is_number(w) for vector in vectors for w in vector):
        return []
    if name in ELECTING and any(w < 0 for vector in vectors for w in vector):
        return [f"found a negative weight, but {name} divides by the sum of the agreeing members' weights, which can"
                f" then be 0. Fix: set normalize: false"]  # fmt: skip
    if any(math.isclose(sum(vector), 0, abs_tol=1e-6) for vector in vectors):
        return [f"weights sum to 0, and {name} divides by their sum (mergekit would write non-finite or wrong weights)"]
    return []


def _density_problems(entry: dict[str, Any], key: str, default: float, members: list[str]) -> list[str]:
    """Return a problem if a density does not fit with gamma (breadcrumbs) or epsilon (DELLA)."""
    for (where, density), (_, other) in itertools.product(_points(entry, "density"), _points(entry, key, default)):
        for m, i, j in itertools.product(members, _depths(density), _depths(other)):
            d, o = _at(density, m, i), _at(other, m, j)
            if not _is_number(d) or not _is_number(o):
                continue
            if key == "gamma" and d + o > 1 + 1e-9:
                return [f"{where}: density {d:g} and gamma {o:g} sum to {d + o:g}, expected at most 1; mergekit would"
                        f" silently remove fewer of the largest entries, or none"]  # fmt: skip
            if key == "epsilon" and d < 1 and not (d - o > 0 and d + o < 1):
                return [f"{where}: density {d:g} and epsilon {o:g} give probabilities from {d - o:g} to {d + o:g},"
                        f" expected both between 0 and 1 (or density 1)"]  # fmt: skip
    return []


def _points(entry: dict[str, Any], key: str, default: Any = None) -> list[tuple[str, Any]]:
    """Return the values that a key spans, each with its place in the file."""
    if key not in entry:
        return [] if default is None else [(key, default)]
    value = entry[key]
    return [(f"{key}[{i}]", v) for i, v in enumerate(value)] if isinstance(value, list) else [(key, value)]


def _depths(value: Any) -> range:
    """Return the indices of all numbers that a value, or a member's value, takes with depth."""
    inner = value.values() if isinstance(value, dict) and not is_layered(value) else [value]
    return range(
        max([1 + len(v["layers"]) for v in inner if is_layered(v) and isinstance(v["layers"], list)], default=1)
    )


def _at(value: Any, member: str, index: int) -> Any:
    """Return the member's number at one of the value's depths."""
    if isinstance(value, dict) and not is_layered(value):
        value = value.get(member)
    if is_layered(value) and isinstance(value["layers"], list):
        numbers = [*value["layers"], value.get("rest")]
        return numbers[min(index, len(numbers) - 1)]
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
