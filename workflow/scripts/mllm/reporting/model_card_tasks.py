"""Write the model card of an exported merge over several tasks, whose folder has a model folder for each task."""

from collections.abc import Mapping
from typing import Any

import yaml

from mllm.core.counting import counted
from mllm.experiment.merge_entries import in_mergekit
from mllm.models import families
from mllm.reporting.model_card import (
    LOADED_BY,
    Facts,
    _data,
    _heading,
    _licence,
    _licences_of_members,
    _part,
    _rivals,
    _scores,
    _source,
    _texts,
)


def text(whole: str, parts: Mapping[str, Facts]) -> str:
    """Write the card, in Markdown with the hub's heading.

    Args:
        whole: name of the model.
        parts: task -> the facts of its part.
    """
    any_part = next(iter(parts.values()))
    base, row = any_part.base, any_part.row
    headed = base.family == families.HEADED
    what = (
        "Its tasks share one backbone; each has a head of its own"
        if headed
        else "It is asked with each task's own prompt"
    )
    lines = [
        "---", yaml.safe_dump(heading(whole, parts), sort_keys=False, allow_unicode=True).rstrip(), "---", "",
        f"# {whole}", "",
        f"One model for {len(parts)} tasks, a merge of {counted(len(row['members'].split()), 'fine-tuned model')} by `{row['method']}`, for the"
        f" classification of {_texts(any_part)}. {what}. It is its method's best recipe over these tasks on the validation texts,"
        f" among those of the experiment *{any_part.experiment['name']}*. Test had no part in the choice.", "",
        "| task | folder | classes |", "| --- | --- | --- |",
        *(f"| {task} | `{task}/` | {', '.join(part.labels)} |" for task, part in parts.items()), "",
        "## Use", "", *use(whole, list(parts), base.family), "",
    ]  # fmt: skip
    for task, part in parts.items():
        rivals = _rivals(part.rivals, part.experiment)
        lines += [f"## Scores in task {task}", "", *_scores(part.row), "", *(f"#{line}" if line.startswith("## ") else line for line in rivals)]  # fmt: skip
    lines += [
        "## Recipe", "",
        f"The {'shared weights' if headed else 'weights'} are made by this recipe from the parents below"
        + (", bit for bit" if in_mergekit(row["method"]) else "") + ". "
        + ("Each task has its expert's head. If it has several experts, the same recipe merges their heads." if headed else ""),
        "", "```yaml", any_part.recipe.rstrip(), "```", "",
        "| parent | part of the texts | SHA-256 of the weights |", "| --- | --- | --- |",
        *(f"| {name} | {_of(name, parts)} | `{digest}` |" for name, digest in any_part.merge.parents.items()),
        "", f"The base is {_source(base.model)}.", "", "## Data", "",
    ]  # fmt: skip
    for task, part in parts.items():
        lines += [f"Task {task}:", "", *_data(part), ""]
    lines += [
        "## Licence", "", _licence(base.model, base.license), *_licences_of_members(any_part.members),
        "The data's terms also apply to models trained on them. Read them before you publish this model.", "",
        "## Versions", "", ", ".join(f"{k} {v}" for k, v in any_part.merge.versions.items()), "",
        *(f"Task {task}: {part.check}" for task, part in parts.items()), "",
    ]  # fmt: skip
    return "\n".join(lines)


def heading(whole: str, parts: Mapping[str, Facts]) -> dict[str, Any]:
    """Return the hub's heading, with the results of all tasks."""
    headings = [_heading(part) for part in parts.values()]
    results = [result for one in headings for result in one["model-index"][0]["results"]]
    return {**headings[0], "model-index": [{"name": whole, "results": results}]}


def use(whole: str, tasks: list[str], family: str) -> list[str]:
    """Write lines of Python that load one task's folder."""
    loader = LOADED_BY.get(family, "AutoModelForSequenceClassification")
    where = f'"{whole}", subfolder="{tasks[0]}"'
    lines = [
        f"from transformers import AutoTokenizer, {loader}",
        f"tokenizer, model = AutoTokenizer.from_pretrained({where}), {loader}.from_pretrained({where})",
    ]
    said = f"Use this folder or its name on the hub. `subfolder` is one of {', '.join(f'`{task}`' for task in tasks)}."
    return ["```python", *lines, "```", "", said]


def _of(name: str, parts: Mapping[str, Facts]) -> str:
    """Name a parent's task and its part of the texts."""
    card = next((part.members[name] for part in parts.values() if name in part.members), None)
    return f"{card.task}: {_part(card)}" if card else _part(None)
