"""Prepare, identify and write a model's predictions for one task, with their costs."""

import hashlib
import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mllm.core import gpu, timing
from mllm.core.arrays import Array
from mllm.core.code_digest import code_digest
from mllm.core.files import once
from mllm.core.messages import log
from mllm.data import labelled
from mllm.models import cards, checkpoint_files, families, tokens
from mllm.models.scorers import Scorer
from mllm.prediction import costs, prediction_tables, run_model, speed, taken_over

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class How:
    """The settings that all predictions of a job share."""

    script: str
    """Name of the predicting script; its code also determines the predictions."""
    data: Path
    """Folder that split_reviews wrote."""
    seed: int
    """Seed of a prompt's examples."""
    threads: int
    gpus: int
    dtype: str
    """Number format; :func:`mllm.prediction.run_model.dtype_of` has replaced ``auto``."""
    tokens: Path | None
    """Folder where candidates with the same tokenisation share their tokens."""


@dataclass(frozen=True)
class Question:
    """A task's reviews for a model."""

    model: Path
    """The model's folder."""
    card: cards.Card
    """The model's card, for this task."""
    names: list[str]
    """Class names, as a prompt words them."""
    rows: "pl.DataFrame"
    """review_id, review, split, label: validation, then test."""
    identity: str
    """Digest of all that determines the predictions."""
    code: str
    """Digest of the predicting code."""
    output: Path
    cost: Path


def question(
    how: How,
    model: Path,
    task: str,
    names: list[str] | None,
    to: tuple[Path, Path],
    prompt: dict[str, Any] | None = None,
) -> Question:
    """Read what a task asks of a model.

    Args:
        how: the job's settings.
        model: the model's folder.
        task: the task whose labelled reviews are predicted.
        names: class names in a prompt's words (default: the task's).
        to: table and cost to write.
        prompt: replaces the card's prompt.

    Raises:
        Failure: a classifier's labels are not the task's.
    """
    names = names or labelled.task_facts(how.data, task)["names"]
    card = cards.read(model)
    card = replace(card, task=task, model={**card.model, "prompt": prompt} if prompt else card.model)
    if card.family == families.HEADED:
        checkpoint_files.check_labels(model, names)
    rows = labelled.labelled(how.data, ("valid", "test"), task)
    code, asked = code_digest(how.script, families.module(card.family)), card.asked()
    identity = taken_over.identity(model, code, _read_by(how.data, asked), asked, names, how.dtype, how.seed)
    return Question(model, card, names, rows, identity, code, *to)


def taken(question: Question) -> bool:
    """Copy finished predictions of the same identity, and tell whether there were any."""
    name = taken_over.take(question.output, question.cost, question.identity)
    if name:
        log.info("copied the finished predictions of %s, which are the same", name)
    return bool(name)


def read(how: How, scorer: Scorer, texts: list[str], family: str) -> tokens.Tokens:
    """Tokenise texts, or reuse the tokens of candidates with the same tokenisation."""
    if not how.tokens:
        return tokens.encode(scorer, texts)
    return tokens.shared(scorer, texts, how.tokens, code_digest("tokenise", families.module(family)))


def write(question: Question, logp: Array, beside: Array, cost: dict[str, Any]) -> None:
    """Write predictions and their cost.

    Args:
        question: what the predictions answer.
        logp: (reviews, classes) natural logarithms of the probabilities.
        beside: the same for the family's own texts.
        cost: the known fields of :class:`mllm.prediction.costs.Cost`.
    """
    rows = question.rows
    more = families.load(question.card.family).priors(logp, beside, (rows["split"] == "valid").to_numpy())
    begin = time.perf_counter()
    prediction_tables.write_predictions(question.output, rows, logp, **more)
    # The training of a merge or blend is its members': the leaderboard adds them up.
    cost = {"train_seconds": question.card.train_seconds, "reviews": rows.height, "identity": question.identity, **cost}
    costs.Cost(**cost, write_seconds=round(time.perf_counter() - begin, 6)).write(question.cost)
    taken_over.note(question.cost, question.identity)


def speeds(how: How, question: Question, scorer: Scorer, read: tokens.Tokens, cost: dict[str, Any]) -> dict[str, Any]:
    """Compute the speeds and memory of a prediction on this machine, as fields of its cost.

    Args:
        how: the job's settings.
        question: the question that was answered.
        scorer: the model that predicted.
        read: the texts' tokens.
        cost: reviews, predict_seconds and shared_layers.
    """
    device, seconds = timing.device_name(), cost["predict_seconds"]
    config = (question.model / "config.json").read_text(encoding="utf-8")
    shape = [question.code, question.card.model, question.names, config, how.dtype, speed.mean_review(read)]
    flops = once(how.tokens, "flops", shape, lambda: speed.counted_flops(scorer, read))
    machine = [os.uname().nodename, device, how.dtype, how.threads]
    peak = once(how.tokens, "peak", machine, lambda: speed.peak_flops(how.dtype))
    whole = not cost.get("shared_layers")  # with reused states, the seconds are not this model's
    return {
        "weights_bytes": sum(f.stat().st_size for f in checkpoint_files.weight_files(question.model)),
        "device": device,
        "gpus": how.gpus,
        "dtype": how.dtype,
        "cut_reviews": read.cut,
        "mean_tokens": round(float(read.lengths.mean()), 2),
        "reviews_per_second": round(cost["reviews"] / seconds, 1) if whole else None,
        "tokens_per_second": round(len(read.flat) / seconds, 1) if whole else None,
        "flops_per_review": flops,
        "device_peak_flops": round(peak),
        "share_of_peak": None if flops is None or not whole else round(flops * cost["reviews"] / seconds / peak, 4),
        **timing.peak_memory(),
    }


def others_share(question: Question) -> bool:
    """Tell whether other candidates have the same frozen layers, bit for bit: merges may differ by rounding."""
    return not isinstance(question.card, cards.Merge)


def shards_key(*identities: str) -> str:
    """Return a digest of all that determines unfinished predictions; a GPU and a CPU have different batches."""
    device = gpu.device()
    batches = [*identities, device, run_model.TOKENS_PER_BATCH[device], run_model.OUTPUTS_PER_BATCH]
    return hashlib.sha256(json.dumps(batches).encode()).hexdigest()[:16]


def _read_by(data: Path, asked: cards.Asked) -> list[str]:
    """Return digests of the reviews that a model predicts, and of those that its prompt may show."""
    shown = ["train"] if ((asked["model"] or {}).get("prompt") or {}).get("examples") else []
    return [labelled.digest(labelled.labelled(data, (split,), asked["task"])) for split in ("valid", "test", *shown)]
