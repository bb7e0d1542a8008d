"""Write the model card of an exported merge: its parts, its scores, its licence."""

from dataclasses import dataclass
from typing import Any

import yaml

from mllm.core.counting import counted
from mllm.evaluation.claim_sentences import difference
from mllm.evaluation.comparison_table import Comparison, meaning, rule
from mllm.evaluation.metrics import METRICS
from mllm.experiment.merge_entries import in_mergekit
from mllm.models import cards

TEXTS = {
    "uci": "drug reviews",
    "synthetic": "generated drug reviews",
}  # by data.source; the user's own files have only their description
LOADED_BY = {"text2text": "AutoModelForSeq2SeqLM", "causal": "AutoModelForCausalLM"}


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Hold the facts of a card."""

    experiment: dict[str, Any]
    task: str
    labels: list[str]
    row: dict[str, Any]
    """Of the leaderboard; with several runs, it has the exported one's scores."""
    among: str
    """A sentence on which of several runs it is; empty with one run."""
    rivals: list[Comparison]
    merge: cards.Merge
    recipe: str
    """The text of ``mergekit.yaml``."""
    members: dict[str, cards.Card]
    base: cards.Base
    split: dict[str, Any]
    """``data/split.json``."""
    counts: dict[str, list[int]]
    """split -> reviews of each class."""
    check: str
    """A sentence on the check of the exported folder's predictions."""


def text(facts: Facts) -> str:
    """Write the card, in Markdown with the hub's heading."""
    row, base = facts.row, facts.base
    model = base.model
    lines = [
        "---", yaml.safe_dump(_heading(facts), sort_keys=False, allow_unicode=True).rstrip(), "---", "",
        f"# {row['candidate']}", "",
        f"A merge of {counted(len(row['members'].split()), 'fine-tuned model')} by `{row['method']}`, for the classification of"
        f" {_texts(facts)}: task *{facts.task}*, classes {', '.join(facts.labels)}. It is its method's best recipe on the"
        f" validation texts, among those of the experiment *{facts.experiment['name']}*. Test had no part in the choice.",
        *(["", facts.among] if facts.among else []), "", "## Use", "", *_use(facts), "", "## Scores", "", *_scores(row), "",
        *_rivals(facts.rivals, facts.experiment),
        "## Recipe", "",
        "This recipe makes the weights from the parents below"
        + (", bit for bit" if in_mergekit(row["method"]) else "") + ":",
        "", "```yaml", facts.recipe.rstrip(), "```", "",
        "| parent | part of the texts | SHA-256 of the weights |", "| --- | --- | --- |",
        *(
            f"| {name} | {_part(facts.members.get(name))} | `{digest}` |"
            for name, digest in facts.merge.parents.items()
        ),
        "", f"The base is {_source(model)}; its classification head was drawn once (seed {base.seed}) and is the same for"
        " all members at the start.", "",
        "## Data", "", *_data(facts), "",
        "## Licence", "", _licence(model, base.license), *_licences_of_members(facts.members),
        "The data's terms also apply to models trained on them. Read them before you publish this model.", "",
        "## Versions", "", ", ".join(f"{k} {v}" for k, v in facts.merge.versions.items()), "",
        f"{facts.check}", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _texts(facts: Facts) -> str:
    """Return what the texts are, in words."""
    data = facts.experiment["data"]
    return str(data.get("description") or TEXTS.get(data["source"], "texts"))


def _use(facts: Facts) -> list[str]:
    """Write lines of Python that load the folder."""
    name, loader = facts.row["candidate"], LOADED_BY.get(facts.base.family)
    if loader is None:
        lines = [
            "from transformers import pipeline",
            f'classify = pipeline("text-classification", model="{name}")  # this folder',
            'print(classify("A text to classify.", truncation=True))',
        ]
        return ["```python", *lines, "```"]
    lines = [
        f"from transformers import AutoTokenizer, {loader}",
        f'tokenizer, model = AutoTokenizer.from_pretrained("{name}"), {loader}.from_pretrained("{name}")  # this folder',
    ]
    asked = (
        "Ask it with the prompt in `model.json`. The prediction is the label whose words are the most likely answer."
    )
    return ["```python", *lines, "```", "", asked]


def among_runs(winner: dict[str, Any], rivals: list[Comparison]) -> str:
    """Say which run of a winner is exported, and its recipe's score over all runs; empty with one run.

    Args:
        winner: its row of the leaderboard.
        rivals: its comparisons.
    """
    if winner["runs"] == 1 or not rivals:
        return ""
    metric = rivals[0].metric
    column = f"test_{metric}"
    return (
        f"It is the run `{winner['best_run']}`, the best of the recipe's {winner['runs']} on validation; the scores below are this"
        f" run's. Over its runs the recipe has a {METRICS[metric].label} of {winner[column]:.4f} ({winner[f'{column}_low']:.4f} to"
        f" {winner[f'{column}_high']:.4f}, over texts and seeds) on test, with a standard deviation of"
        f" {winner[f'{column}_sd']:.4f}. Comparisons with others are the recipe's."
    )


def _heading(facts: Facts) -> dict[str, Any]:
    row, base = facts.row, facts.base
    model, licence = base.model, base.license
    source = facts.experiment["data"]["source"]
    heading: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-classification"}
    if source in TEXTS:  # the language of other texts is unknown
        heading["language"] = ["en"]
    others = {card.license for card in facts.members.values() if isinstance(card, cards.Published)}
    if others - {licence}:
        heading["license"] = "other"  # see the text: members have licences of their own
    elif licence or model["source"] != "scratch":
        heading["license"] = licence or "unknown"
    if model["source"] == "hub":
        heading |= {"base_model": [model["id"]], "base_model_relation": "merge"}
    heading["tags"] = ["merge", "mergekit", row["method"]]
    metrics = [
        {"type": m, "name": metric.label, "value": round(row[f"test_{m}"], 4), "args": {"interval": _interval(row, m)}}
        for m, metric in METRICS.items()
        if row[f"test_{m}"] is not None
    ]
    dataset = {"name": _texts(facts)[:1].upper() + _texts(facts)[1:], "type": source, "split": "test"}
    task = {"type": "text-classification", "name": facts.task}
    heading["model-index"] = [
        {"name": row["candidate"], "results": [{"task": task, "dataset": dataset, "metrics": metrics}]}
    ]
    return heading


def _interval(row: dict[str, Any], metric: str, split: str = "test") -> list[float]:
    return [round(row[f"{split}_{metric}_{end}"], 4) for end in ("low", "high")]


def _scores(row: dict[str, Any]) -> list[str]:
    lines = ["| metric | validation | 95 % interval | test | 95 % interval |", "| --- | ---: | :---: | ---: | :---: |"]
    for m, name in ((m, metric.label) for m, metric in METRICS.items() if row[f"test_{m}"] is not None):
        cells = []
        for split in ("valid", "test"):
            low, high = _interval(row, m, split)
            cells += [f"{row[f'{split}_{m}']:.4f}", f"{low:.4f} – {high:.4f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, "", "Intervals are 95 %, over texts; each text counts once."]


def _rivals(rows: list[Comparison], experiment: dict[str, Any]) -> list[str]:
    """Answer whether this merge may replace each of the others, as the verdict does, and state the rule."""
    if not rows:
        return []
    margin = experiment["compare"]["margin"]
    table = [f"| {r.against} ({r.kind}) | **{r.answer}** | {difference(r)} | {meaning(r.holds, r.low, r.high, f'{margin:g}')} |" for r in rows if r.claim]  # fmt: skip
    metric = METRICS[rows[0].metric].label
    return [
        "## May it replace others?", "",
        f"Differences are in {metric} on the same test texts, with 95 % intervals; positive: this merge is better.",
        rule(margin), "",
        "| the other | replace it? | difference | in words |", "| --- | --- | --- | --- |", *table, "",
    ]  # fmt: skip


def _part(card: cards.Card | None) -> str:
    if card is None:
        return "(base)"
    if isinstance(card, cards.Published):
        return f"published: {_source(card.source)}"
    part = card.part if isinstance(card, cards.FineTuned) else {}
    where = "; ".join(f"{column}: {', '.join(map(str, values))}" for column, values in part.get("where", {}).items())
    shard = f"shard {part['shard'] + 1} of {part['of']} (seed {part['seed']})" if "of" in part else ""
    cap = f"at most {part['cap']} of each class" if "cap" in part else ""
    return ", ".join(filter(None, (where, shard, cap))) or "all of train"


def _source(model: dict[str, Any]) -> str:
    if model["source"] == "hub":
        return f"[{model['id']}](https://huggingface.co/{model['id']}) at `{model['revision']}`"
    return (
        f"the checkpoint {model['name']!r}" if model["source"] == "local" else f"{model['name']!r}, made from scratch"
    )


def _data(facts: Facts) -> list[str]:
    counts = facts.counts
    lines = ["| split | " + " | ".join(facts.labels) + " |", "| --- |" + " ---: |" * len(facts.labels)]
    for split in ("train", "valid", "test"):
        lines.append(f"| {split} | " + " | ".join(f"{count:,}" for count in counts[split]) + " |")
    return [*lines, "", f"Split: {facts.split['mode']}, seed {facts.experiment['seed']}."]


def _licence(model: dict[str, Any], licence: str | None) -> str:
    if model["source"] == "scratch":
        return "The base was made from scratch, so no parent's licence applies. Choose a licence before you publish this model."
    if licence:
        return f"The base is under `{licence}`, which also applies to models made from it."
    return "The base's files name no licence. Find out which it has before you publish this model."


def _licences_of_members(members: dict[str, cards.Card]) -> list[str]:
    """State the licences of members that were taken as published; other members have the base's."""
    return [
        f"The member {name}, {_source(card.source)}, "
        + (f"is under `{card.license}`." if card.license else "names no licence. Find out which it has.")
        for name, card in sorted(members.items())
        if isinstance(card, cards.Published)
    ]
