"""Report wrong keys, types and ranges, from the schema's own errors."""

import types
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from mllm.core.wording import listed, nearest, show


def shape_problems(error: ValidationError, raw: Any, model: type[BaseModel]) -> list[str]:
    """Return one line for each key with a wrong name, type or range."""
    problems: dict[str, str] = {}
    for item in error.errors(include_url=False):
        path, value = _locate(item["loc"], raw)
        path = path.replace("[key]", str(item["input"])) if item["loc"][-1:] == ("[key]",) else path
        problems.setdefault(path, f"{path}: {_explain(item, value, item['loc'], model)}")
    return list(problems.values())


def _locate(loc: tuple[int | str, ...], raw: Any) -> tuple[str, Any]:
    """Return the key's path as the user wrote it, and the value at that path.

    pydantic's own path also names the variant of a union, and treats a scalar as a list of one.
    """
    path, node = "", raw
    for i, step in enumerate(loc):
        if isinstance(step, int):
            if isinstance(node, list) and step < len(node):
                path, node = f"{path}[{step}]", node[step]
        elif isinstance(node, dict) and (step in node or i + 1 == len(loc)):
            path, node = (f"{path}.{step}" if path else str(step)), node.get(step)
    return path or "the file", node


def _explain(item: Any, value: Any, loc: tuple[int | str, ...], model: type[BaseModel]) -> str:
    kind, context, found = item["type"], item.get("ctx", {}), f"found {show(value)}"
    if loc[-1:] == ("[key]",) and not isinstance(item["input"], str):
        what, name = "a number or date", item["input"]
        if isinstance(name, bool):
            what, name = "true or false", "yes" if name else "no"
        return f"YAML reads the name {name} as {what}. Fix: write it in quotes, '{name}'"
    match kind:
        case "extra_forbidden":
            keys = _keys(model, loc[:-1])
            return f"unknown key; allowed: {listed(keys)}{nearest(str(loc[-1]), keys)}"
        case "missing":
            return f"missing; {_description(model, loc)}"
        case "union_tag_not_found":
            return f"missing key {context['discriminator'].strip(chr(39))}"
        case "union_tag_invalid":
            key = context["discriminator"].strip("'")
            allowed = [t.strip(" '") for t in context["expected_tags"].split(",")]
            return f"{key}: found {show(context['tag'])}, allowed: {listed(allowed)}{nearest(str(context['tag']), allowed)}"
        case "literal_error":
            allowed = [t.strip(" '") for t in context["expected"].replace(" or ", ", ").split(",")]
            return f"{found}, allowed: {listed(allowed)}{nearest(str(value), allowed)}"
        case "float_type" | "int_type" | "int_from_float":
            return f"{found}, expected a {'whole ' if kind.startswith('int') else ''}number"
        case "bool_type":
            return f"{found}, expected true or false"
        case "string_type":
            return f"{found}, expected text" + (". Fix: put it in quotes" if isinstance(value, int | float) else "")
        case "list_type" | "dict_type" | "model_type" | "model_attributes_type":
            return f"{found}, expected a {'list' if kind == 'list_type' else 'map'}"
        case "string_pattern_mismatch":
            return f"{found}, expected {_pattern(context['pattern'])}"
        case "string_too_long":
            expected = f"expected at most {context['max_length']}, since it becomes part of a file name"
            return f"found {len(value)} characters, {expected}"
        case "value_error":
            return f"{found}, {context['error']}"
        case "too_short" | "too_long":
            bound = "at least" if kind == "too_short" else "at most"
            number = context["min_length" if kind == "too_short" else "max_length"]
            return f"found {context['actual_length']} entries, expected {bound} {number}"
    hint = (
        " (a fraction, not a percentage)"
        if loc[-2:-1] == ("density",) and isinstance(value, int | float) and value > 1
        else ""
    )
    return f"{found}, {item['msg'].replace('Input should be', 'expected a number')}{hint}"


def _pattern(pattern: str) -> str:
    return {
        r"^[\w.][\w./-]*$": "a commit (40 hexadecimal digits), a branch or a tag",
        r"^[\w.-]+/[\w.-]+$": "a repository as owner/name",
        r"^[a-z][a-z0-9_]*$": "MLLM's name: small letters, digits and '_', first a letter (the file's is on the right)",
    }.get(pattern, "letters, digits, '.', '_' and '-', starting with a letter or digit")


def _keys(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Return the keys that are allowed at a place of the file."""
    found = _model_at(model, loc)
    return [f.alias or name for name, f in found.model_fields.items()] if found else []


def _description(model: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    found = _model_at(model, loc[:-1])
    field = next((f for n, f in found.model_fields.items() if (f.alias or n) == loc[-1]), None) if found else None
    return " ".join(((field.description if field else None) or "it is required").split())


def _model_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> type[BaseModel] | None:
    options: list[type[BaseModel]] = [model]
    for step in loc:
        if isinstance(step, int):
            continue
        variants = [m for m in options if step in _tags(m)]
        if variants and len(options) > 1:
            options = variants
            continue
        fields = [f for m in options for n, f in m.model_fields.items() if (f.alias or n) == step]
        options = [m for f in fields for m in _models_in(f.annotation)]
    return options[0] if options else None


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    """Return the names that pydantic's paths give a variant of a union: its method or source, or its class's tag."""
    own = {"Baseline": ("baseline",), "Reference": ("fine_tuned",)}.get(model.__name__, ())
    return own + tuple(
        t
        for key in ("method", "source")
        if key in model.model_fields
        for t in get_args(model.model_fields[key].annotation)
    )


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (list, Annotated, Union, types.UnionType):
        return [m for a in get_args(annotation) for m in _models_in(a)]
    return []
