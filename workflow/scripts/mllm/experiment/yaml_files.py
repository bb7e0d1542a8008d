"""Read experiment files strictly as plain values, and combine them."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from mllm.core.errors import Failure
from mllm.core.wording import nearest


class ExperimentError(Failure):
    """All errors of an experiment file, one line each."""

    def __init__(self, source: str, problems: list[str]):
        self.problems = problems
        count = f"{len(problems)} error{'s' if len(problems) > 1 else ''}"
        super().__init__("\n".join([f"{source}: {count}", *(f"  {p}" for p in problems)]))


# PyYAML's loader in C, several times faster, if PyYAML was built with it.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SafeLoader):
    """Refuse duplicate keys in one map; plain YAML silently keeps the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # <<: *other, whose keys may be overridden
                continue
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if key in seen:
                raise yaml.YAMLError(f"line {line}: duplicate key {key!r} (first on line {seen[key]})")
            seen[key] = line
        return super().construct_mapping(node, deep)


# YAML 1.1 reads 6e-5 as text, since it has no decimal point; YAML 1.2 and JSON read a number.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read one experiment file as plain values.

    Raises:
        ExperimentError: the file is missing, not YAML, or no map.
    """
    try:
        raw = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)  # a SafeLoader
    except FileNotFoundError:
        others = [str(file) for file in [*Path(path).parent.glob("*.yaml"), *Path("config").glob("*.yaml")]]
        raise ExperimentError(str(path), [f"no such file{nearest(str(path), others)}"]) from None
    except UnicodeDecodeError as error:
        raise ExperimentError(str(path), [f"not UTF-8 at byte {error.start}"]) from None
    except IsADirectoryError:
        raise ExperimentError(str(path), ["found a folder, expected an experiment file"]) from None
    except yaml.YAMLError as error:
        raise ExperimentError(str(path), [f"not valid YAML: {_fault(error)}"]) from None
    if not isinstance(raw, dict):
        raise ExperimentError(str(path), [f"found {_kind(raw)}, expected a map with keys such as name, data, models"])
    return raw


def _fault(error: yaml.YAMLError) -> str:
    """Return where a file is not valid YAML: the line first, then what the parser was reading."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    mark, begin = error.problem_mark, error.context_mark
    since = f" that begins on line {begin.line + 1}" if begin and begin.line != mark.line else ""
    context = f" ({error.context}{since})" if error.context else ""
    return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}{context}"


def typed(values: Any) -> Any:
    """Return values of ``--config`` with a file's types: Snakemake passes values inside maps and lists as text."""
    if isinstance(values, dict):
        return {key: _inner(value) for key, value in values.items()}
    return values


def _inner(value: Any, inside: bool = False) -> Any:
    if isinstance(value, dict):
        return {k: _inner(v, True) for k, v in value.items()}
    if isinstance(value, list):
        return [_inner(v, True) for v in value]
    if inside and isinstance(value, str):
        try:
            return yaml.load(value, _Loader)  # a SafeLoader
        except yaml.YAMLError:
            return value
    return value


def combine(paths: Sequence[str | Path], override: dict[str, Any]) -> dict[str, Any]:
    """Replace values by later files' and then ``override``'s: maps key by key, lists completely (as Snakemake does)."""
    raw: dict[str, Any] = {}
    for values in [*(read_yaml(p) for p in paths), override]:
        _update(raw, values)
    return raw


def _update(target: dict[str, Any], values: dict[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            _update(target[key], value)
        else:
            target[key] = value


def _kind(value: Any) -> str:
    names = {type(None): "nothing", str: "text", list: "a list", dict: "a map", bool: "true or false"}
    return names.get(type(value), "a number")
