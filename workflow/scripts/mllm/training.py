"""Fine-tuning by transformers' Trainer, resumable at any moment."""

import math
import shutil
import time
from pathlib import Path
from typing import Any

import polars as pl
import torch
from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from mllm import ranks
from mllm.cli import Failure, log, progress
from mllm.splits import label_column

WHOLE = "whole"  # stands in a training checkpoint once all its other files do


class QuietProgress(TrainerCallback):
    """A bar on the terminal, plain lines in the log, instead of the Trainer's own printing."""

    def __init__(self, what: str):
        self.what = what
        self.steps: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        left = state.max_steps - state.global_step
        self.steps = progress(range(left), self.what, total=left, unit="step")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        next(self.steps, None)


class TimedCheckpoints(TrainerCallback):
    """Save every so many seconds, and mark a checkpoint whole when everything of it is on disk."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.saved = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        due = time.monotonic() - self.saved >= self.seconds and state.global_step < state.max_steps
        control.should_save = control.should_save or ranks.together(due)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.saved = time.monotonic()
        ranks.together(None)  # each process writes its own random state
        if ranks.first():
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / WHOLE).touch()


def fine_tune(
    model: Any,
    tokenizer: Any,
    rows: pl.DataFrame,
    task: str,
    hyper: dict[str, Any],
    checkpoints: Path,
    checkpoint_seconds: float,
) -> dict[str, Any]:
    """Train a classifier in place on the labelled rows; each of several processes with its share of each batch.

    Args:
        model: sequence classifier.
        tokenizer: its ``model_max_length`` cuts longer reviews.
        rows: reviews with the task's label column; rows without a label are left out.
        task: name of the task.
        hyper: epochs or steps, learning_rate, batch_size, weight_decay, warmup (fraction), seed.
        checkpoints: folder that outlives the job; training goes on from the last whole checkpoint there.
        checkpoint_seconds: time between checkpoints.

    Returns:
        rows, steps, the loss curve, and the number of cut reviews.
    """
    rows = rows.filter(pl.col(label_column(task)).is_not_null())
    if not rows.height:
        raise Failure(f"task {task!r}: none of the expert's reviews has a label")
    encoded = tokenizer(rows["review"].to_list(), truncation=True)
    labels = rows[label_column(task)].to_list()
    data = [
        {"input_ids": ids, "attention_mask": mask, "labels": label}
        for ids, mask, label in zip(encoded["input_ids"], encoded["attention_mask"], labels, strict=True)
    ]
    per_epoch = math.ceil(len(data) / hyper["batch_size"])
    steps = hyper.get("steps") or max(1, round(per_epoch * hyper["epochs"]))
    pristine = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
    parts = 1  # of a batch: one, until the GPU's memory turns out to be too small
    while True:
        trainer = _trainer(model, tokenizer, data, hyper, steps, parts, checkpoints, checkpoint_seconds)
        log.info("training on %s reviews, %s steps of %s", f"{len(data):,}", steps, hyper["batch_size"])
        try:
            last = ranks.together(last_whole(checkpoints) if ranks.first() else None)
            trainer.train(resume_from_checkpoint=last)
            break
        except torch.OutOfMemoryError:
            if ranks.count() > 1:  # the others wait for this one's gradients
                raise Failure(
                    f"GPU memory is too small for {hyper['batch_size'] // ranks.count()} reviews on each of"
                    f" {ranks.count()} GPUs: a smaller batch_size, or more gpus"
                ) from None
            parts *= 2
            if hyper["batch_size"] % parts:
                raise
        # The same batches in smaller parts, whose gradients are averaged: the same training, but for rounding, dropout and
        # the weights of the rows in an epoch's last, smaller batch.
        log.info("GPU memory is too small: each batch goes in %d parts from now on", parts)
        del trainer
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        model.load_state_dict(pristine)
    model.cpu()
    if not all(torch.isfinite(p).all() for p in model.parameters()):
        raise Failure(
            f"training diverged: weights are not finite (learning_rate is {hyper['learning_rate']}; try a smaller one)"
        )
    history = [p for p in trainer.state.log_history if "loss" in p]
    return {
        "reviews": len(data),
        "steps": steps,
        "loss": [{"step": p["step"], "loss": round(float(p["loss"]), 6)} for p in history],
        "cut_reviews": sum(len(ids) >= tokenizer.model_max_length for ids in encoded["input_ids"]),
    }


def _trainer(
    model: Any,
    tokenizer: Any,
    data: list[dict[str, Any]],
    hyper: dict[str, Any],
    steps: int,
    parts: int,
    checkpoints: Path,
    checkpoint_seconds: float,
) -> Trainer:
    # The classifiers' loss is a mean over the rows given, whatever they do with other arguments: the Trainer has to divide
    # by the number of parts.
    model.accepts_loss_kwargs = False
    trainer = Trainer(
        model,
        TrainingArguments(
            output_dir=str(checkpoints),
            max_steps=steps,
            per_device_train_batch_size=hyper["batch_size"] // parts // ranks.count(),
            gradient_accumulation_steps=parts,
            learning_rate=hyper["learning_rate"],
            weight_decay=hyper["weight_decay"],
            warmup_steps=round(hyper["warmup"] * steps),
            seed=hyper["seed"],
            data_seed=hyper["seed"],
            logging_steps=max(1, steps // 50),
            save_strategy="no",  # TimedCheckpoints decides
            save_total_limit=2,
            report_to="none",
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
            # Processes without GPUs find each other only where the backend is named.
            ddp_backend="gloo" if ranks.count() > 1 and not torch.cuda.is_available() else None,
            dataloader_pin_memory=torch.cuda.is_available(),
        ),
        train_dataset=data,
        data_collator=DataCollatorWithPadding(tokenizer),
        callbacks=[QuietProgress("training"), TimedCheckpoints(checkpoint_seconds)],
    )
    trainer.remove_callback(PrinterCallback)
    if trainer.args.world_size != ranks.count():  # each would train alone, on the same rows
        raise Failure(f"{ranks.count()} processes were started, {trainer.args.world_size} found each other")
    return trainer


def last_whole(checkpoints: Path) -> str | None:
    """The latest training checkpoint that is whole; half-written ones are removed."""
    found = sorted(checkpoints.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    for folder in [f for f in found if not (f / WHOLE).exists()]:
        log.info("%s is half-written; removed", folder)
        shutil.rmtree(folder)
    whole = [f for f in found if f.exists()]
    if whole:
        log.info("going on from %s", whole[-1])
    return str(whole[-1]) if whole else None
