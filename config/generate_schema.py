"""Write the files that are made from the experiment file's models in mllm/experiment/schema.py.

These are config/experiment.schema.json, with which editors complete and check experiment files, and docs/experiment.md, a
page with every key. With --check, write nothing and fail if a file is out of date.
"""

import argparse
import json
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "workflow/scripts"))

from mllm.experiment.load import json_schema  # noqa: E402

INTRODUCTION = """# Writing an experiment: every key

*`make envs` makes this page from the models that check the file (`workflow/scripts/mllm/experiment/schema.py` and its imports);
`make check` compares them.*

One YAML file is one experiment. Start from one that runs: `config/demo.yaml` (minutes, no download), `config/local.yaml` (your own
files), `config/config.yaml` (GPT-2 on the cluster). With the line
`# yaml-language-server: $schema=experiment.schema.json` at its top, editors complete keys and underline errors.

- Unknown keys, numbers written as text, duplicate keys and values out of range are errors. All errors of a file are listed together,
  before any job.
- Experts, merges and all other entries have **names**. A new name makes a new entry; the order of entries changes nothing.
- In `merges`, a **list instead of a value spans the grid**: `density: [0.3, 0.6]` with `lambda: [0.8, 1.0]` are four merges.
- A key marked **needed** is required; – marks an optional key without a default.
- A map such as `columns: {review: Review Text}` has *MLLM's name: the file's name*; `classes: {good: [4, 5]}` has *class: values of the column*.

"""
# Keys whose values are entries with tables of their own.
SEE = {
    "data": "Source of the reviews.", "split": "How reviews become train, validation and test.", "tasks": "Labels to predict.",
    "models": "Sources of the checkpoints.", "experts": "Models to merge.", "merges": "Merge methods and their parameters.",
    "blends": "Combinations of predictions instead of weights.", "references": "Models to compare the merges with.",
    "compare": "Metric of selection, and the margin within which scores count as equal.",
    "pretrain": "Language modelling before anything else.",
}  # fmt: skip
# Section title, names of its entries in the schema, and the key that distinguishes them, if any.
SECTIONS = [
    ("The file", None, ""),
    ("`data`", None, "source"),
    ("`split`", ["Split"], ""),
    ("`tasks`", ["Task"], ""),
    ("`models`", None, "source"),
    ("`models[].prompt`", ["Prompt"], ""),
    ("`models[].pretrain`", ["Pretrain"], ""),
    ("`experts`", ["Expert"], ""),
    ("`experts[].lora`, `references[].lora`", ["Lora"], ""),
    ("`references`", ["Reference", "Baseline"], ""),
    ("`blends`", ["Blend"], ""),
    ("`compare`", ["Compare"], ""),
    ("`candidates`", ["Candidates"], ""),
]
WHO = {"Reference": "A model of `models`", "Baseline": "`model: tfidf` or `majority`"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if a file is out of date")
    check = parser.parse_args().check
    schema = json_schema()
    for name, content in {
        "config/experiment.schema.json": json.dumps(schema, indent=2) + "\n",
        "docs/experiment.md": page(schema),
    }.items():
        file = ROOT / name
        if not check:
            file.write_text(content)
        elif not file.exists() or file.read_text() != content:
            sys.exit(f"{name}: out of date (differs from mllm/experiment/schema.py). Fix: run make envs")


def page(schema: dict[str, Any]) -> str:
    """Return every key of an experiment file as Markdown: one table for each kind of entry."""
    definitions = schema["$defs"]
    parts = [INTRODUCTION]
    for title, names, key in SECTIONS:
        parts.append(f"## {title}\n\n")
        found: list[dict[str, Any]] = [definitions[name] for name in names or []]
        if key:
            items = schema["properties"][title.strip("`")]
            found = [definitions[o["$ref"].split("/")[-1]] for o in items.get("items", items)["oneOf"]]
        for model in found or [schema]:
            if len(found) > 1:
                kind = f"`{key}: {model['properties'][key]['const']}`" if key else WHO[model["title"]]
                parts.append(f"### {kind}\n\n")
            parts.append(f"{_line(model['description'])}\n\n{_keys(model, skip={key})}\n")
        if title.startswith("`experts[].lora"):
            parts.append(_merges(schema))
    return "".join(parts)


def _merges(schema: dict[str, Any]) -> str:
    """Return the methods' section: the keys of all methods once, then each method's own."""
    entries = [schema["$defs"][o["$ref"].split("/")[-1]] for o in schema["properties"]["merges"]["items"]["oneOf"]]
    models = {entry["properties"]["method"]["const"]: entry for entry in entries}
    shared = set.intersection(*(set(m["properties"]) for m in models.values())) - {"method"}
    first = next(iter(models.values()))
    common = {**first, "properties": {k: v for k, v in first["properties"].items() if k in shared}}
    parts = [
        "## `merges`\n\nAn entry names its `method` and `members`; its parameters have mergekit's names and defaults."
        " [merging.md](merging.md) says what each method computes. Keys of all methods:\n\n",
        _keys(common),
        "\nEach parameter below is one value, or a list that spans the grid. *By depth*: it may also be"
        " `{layers: [first, …, last], rest: …}`. *By member*: it may also be a map of `member: value`.\n\n",
    ]
    for method, model in models.items():
        parts.append(
            f"### `method: {method}`\n\n{_line(model.get('description', ''))}\n\n{_keys(model, {'method', *shared})}\n"
        )
    return "".join(parts)


def _keys(model: dict[str, Any], skip: Collection[str] = ()) -> str:
    required = model.get("required", [])
    keys = sorted(model["properties"].items(), key=lambda item: (item[0] != "name", item[0] not in required))
    rows = [
        f"| `{key}` | {_type(value)} | {_default(key, value, required)} | {_line(value.get('description') or SEE[key])} |"
        for key, value in keys
        if key not in skip
    ]
    return (
        "\n".join(["| key | value | default | meaning |", "| --- | --- | --- | --- |", *rows]) + "\n"
        if rows
        else "No keys of its own.\n"
    )


def _type(value: dict[str, Any]) -> str:
    """Return a schema's type in words, without details that only a program needs."""
    if "$ref" in value:
        return "a map, see below"
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return ", ".join(f"`{v}`" for v in value["enum"])
    options = [o for o in [*value.get("anyOf", []), *value.get("oneOf", [])] if o.get("type") != "null"]
    if options:
        arrays = [o for o in options if o.get("type") == "array"]
        scalars = [o for o in options if o.get("type") != "array"]
        if len(arrays) == 1 and len(scalars) == 1 and arrays[0].get("items") == scalars[0]:
            return _type(scalars[0])  # a parameter of a merge, which may be a list
        maps = [o for o in scalars if o.get("type") == "object"]
        if maps and scalars[0].get("type") == "number":
            return ", ".join([_type(scalars[0]), "by depth", *["by member"] * (len(maps) > 1)])
        return " or ".join(dict.fromkeys(_type(o) for o in options))
    kind = value.get("type")
    if kind == "array":
        return f"list of {_plural(value.get('items', {}))}"
    if kind == "object":
        inner = value.get("additionalProperties")
        return f"map of name: {_type(inner)}" if isinstance(inner, dict) else "map"
    return {"string": "text", "integer": "whole number", "number": "number", "boolean": "`true` or `false`"}[
        str(kind)
    ] + _bounds(value)


def _plural(item: dict[str, Any]) -> str:
    kind = _type(item)
    return {"text": "texts", "whole number": "whole numbers"}.get(
        kind, "entries, see below" if "see below" in kind else kind
    )


def _bounds(value: dict[str, Any]) -> str:
    words = (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
    found = [f"{sign} {value[key]:g}" if value[key] != 2**32 else "< 2³²" for key, sign in words if key in value]
    return " " + ", ".join(found) if found else ""


def _default(key: str, value: dict[str, Any], required: list[str]) -> str:
    if key in required:
        return "**needed**"
    default = value.get("default")
    grid = any(o.get("type") == "array" for o in value.get("anyOf", []))
    if grid and isinstance(default, list) and len(default) == 1:
        default = default[0]
    if default in (None, "", [], {}) or isinstance(default, dict):
        return "–"
    return f"`{json.dumps(default, ensure_ascii=False).strip(chr(34))}`"


def _line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    main()
