"""Fine-tuning by transformers' Trainer, resumable at any moment."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from mllm.core.errors import Failure
from mllm.core.messages import log
from mllm.data.labels import label_column
from mllm.models import families, lora, processes
from mllm.models.families import Family, Row
from mllm.models.training_callbacks import (
    BEST,
    EarlyStopping,
    Over,
    TimedCheckpoints,
    last_whole,
    validation,
)
from mllm.models.training_progress import QuietProgress

VALIDATION = 1000  # reviews at most: what a training is watched by need not be all that candidates are judged by


class ByLength(torch.utils.data.Sampler[int]):
    """Batches of reviews of similar length, in random order: little padding, and the same order by seed and epoch alone.

    Args:
        lengths: of the reviews.
        batch: reviews that make one step, whatever parts they are computed in.
        seed: of the order.
    """

    def __init__(self, lengths: list[int], batch: int, seed: int):
        self.lengths, self.batch, self.seed, self.epoch = np.array(lengths), batch, seed, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self.lengths))
        pool = 50 * self.batch  # among which lengths are sorted: enough for little padding, far from an order by length
        order = np.concatenate(
            [p[np.argsort(-self.lengths[p], kind="stable")] for p in np.split(order, range(pool, len(order), pool))]
        )
        full = len(order) // self.batch * self.batch
        batches = order[:full].reshape(-1, self.batch)
        return iter(np.append(batches[rng.permutation(len(batches))], order[full:]).tolist())


class Begun(TrainerCallback):
    """Tells the order its epoch where a training begins or goes on: accelerate's wrappers around it do not, all of them."""

    def __init__(self, order: ByLength):
        self.order = order

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.order.set_epoch(state.global_step // math.ceil(len(self.order) / self.order.batch))


class FamilyTrainer(Trainer):
    """The Trainer with a family's loss, the mean of its reviews' weighted ones."""

    def __init__(self, family: Family, order: ByLength, **more: Any):
        self.family, self.order = family, order
        super().__init__(**more)
        self.add_callback(Begun(order))

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        inputs = dict(inputs)
        weights = inputs.pop("weights")
        losses, right = self.family.losses(model, inputs)
        loss = (weights * losses).mean()
        return (loss, {"losses": losses, "right": right}) if return_outputs else loss

    def _get_train_sampler(self, train_dataset: Any = None) -> ByLength:
        return self.order


def fine_tune(
    model: Any,
    tokenizer: Any,
    parts: dict[str, pl.DataFrame],
    names: list[str],
    card: dict[str, Any],
    hyper: dict[str, Any],
    checkpoints: Path,
    checkpoint_seconds: float,
) -> tuple[Any, dict[str, Any]]:
    """Train a model on the labelled rows; each of several processes with its share of each batch.

    Args:
        model: of any family, as loaded.
        tokenizer: its ``model_max_length`` cuts longer reviews.
        parts: ``train`` and ``valid`` reviews with the task's label column; rows without a label are left out.
        names: of the task's classes.
        card: model.json of the base: family, model, task.
        hyper: epochs or steps, learning_rate, batch_size, weight_decay, warmup (fraction), seed; lora, class_weights,
            early_stopping.
        checkpoints: folder that outlives the job; training goes on from the last whole checkpoint there.
        checkpoint_seconds: time between checkpoints.

    Returns:
        The trained model, with adapters folded in; reviews, steps, loss and validation curves, parts that batches were
        computed in, number of cut reviews.
    """
    family = families.load(card["family"])
    label = label_column(card["task"])
    parts = {split: rows.filter(pl.col(label).is_not_null()) for split, rows in parts.items()}
    if not parts["train"].height:
        raise Failure(f"task {card['task']!r}: none of the expert's reviews has a label")
    shown = parts["valid"].sample(min(VALIDATION, parts["valid"].height), seed=hyper["seed"], shuffle=True)
    found = {
        split: family.rows(card, tokenizer, names, rows["review"].to_list(), rows[label].to_list())
        for split, rows in (("train", parts["train"]), ("valid", shown))
    }
    (data, cut), (watched, _) = found["train"], found["valid"]
    labels = parts["train"][label].to_numpy()
    by_class = class_weights(labels, len(names), hyper.get("class_weights") == "balanced")
    for rows, frame in ((data, parts["train"]), (watched, shown)):
        for row, k in zip(rows, frame[label].to_list(), strict=True):
            row["weight"] = float(by_class[k])
    watched.sort(key=lambda row: len(row["input_ids"]))
    model = lora.adapted(model, card["family"], hyper["lora"], hyper["seed"]) if hyper.get("lora") else model
    per_epoch = math.ceil(len(data) / hyper["batch_size"])
    steps = hyper.get("steps") or max(1, round(per_epoch * hyper["epochs"]))
    pristine = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
    in_parts = 1  # each batch: in one, until the GPU's memory turns out to be too small
    while True:
        trainer = _trainer(
            model, tokenizer, family, data, watched, hyper, steps, in_parts, checkpoints, checkpoint_seconds
        )
        log.info("training on %s reviews, %s steps of %s", f"{len(data):,}", steps, hyper["batch_size"])
        try:
            last = processes.together(last_whole(checkpoints) if processes.first() else None)
            trainer.train(resume_from_checkpoint=last)
            break
        except Over:
            break
        except torch.OutOfMemoryError:
            if processes.count() > 1:  # the others wait for this one's gradients
                raise Failure(
                    f"GPU memory is too small for {hyper['batch_size'] // processes.count()} reviews on each of"
                    f" {processes.count()} GPUs: a smaller batch_size, or more gpus"
                ) from None
            in_parts *= 2
            if hyper["batch_size"] % in_parts:
                raise
        # The same batches in smaller parts, whose gradients are averaged: the same training, but for rounding, dropout and
        # the weights of the rows in an epoch's last, smaller batch.
        log.info("GPU memory is too small: each batch goes in %d parts from now on", in_parts)
        del trainer
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        model.load_state_dict(pristine)
    curve = validation(trainer.state)
    if hyper.get("early_stopping") and curve:
        from safetensors.torch import load_file

        model.load_state_dict(load_file(checkpoints / BEST), strict=False)
    model = lora.folded(model) if hyper.get("lora") else model
    model.cpu()
    if not all(torch.isfinite(p).all() for p in model.parameters()):
        raise Failure(
            f"training diverged: weights are not finite (learning_rate is {hyper['learning_rate']}; try a smaller one)"
        )
    history = [p for p in trainer.state.log_history if "loss" in p]
    return model, {
        "reviews": len(data),
        "steps": trainer.state.global_step,
        "loss": [{"step": p["step"], "loss": round(float(p["loss"]), 6)} for p in history],
        "validation": curve,
        "batch_parts": in_parts,
        "cut_reviews": cut,
    }


def class_weights(labels: np.ndarray, classes: int, balanced: bool) -> np.ndarray:
    """(classes,) what a review of each class counts; balanced as in scikit-learn: all classes together count the same."""
    counts = np.bincount(labels, minlength=classes)
    return counts.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1)) if balanced else np.ones(classes)


def _measures(found: Any) -> dict[str, float]:
    losses, right = found.predictions
    return {"nll": round(float(losses.mean(dtype=float)), 6), "accuracy": round(float(right.mean()), 6)}


def _weighted(
    collate: Callable[[list[Row]], dict[str, torch.Tensor]],
) -> Callable[[list[Row]], dict[str, torch.Tensor]]:
    return lambda rows: {**collate(rows), "weights": torch.tensor([row["weight"] for row in rows])}


def _trainer(
    model: Any,
    tokenizer: Any,
    family: Family,
    data: list[Row],
    watched: list[Row],
    hyper: dict[str, Any],
    steps: int,
    parts: int,
    checkpoints: Path,
    checkpoint_seconds: float,
) -> Trainer:
    gpu = torch.cuda.is_available()
    # Losses are means over the rows given, whatever is done with other arguments: the Trainer has to divide by the parts.
    model.accepts_loss_kwargs = False
    size = hyper["batch_size"] // parts // processes.count()
    trainer = FamilyTrainer(
        family,
        ByLength([len(row["input_ids"]) for row in data], hyper["batch_size"], hyper["seed"]),
        model=model,
        args=TrainingArguments(
            output_dir=str(checkpoints),
            max_steps=steps,
            per_device_train_batch_size=size,
            per_device_eval_batch_size=size,
            gradient_accumulation_steps=parts,
            learning_rate=hyper["learning_rate"],
            weight_decay=hyper["weight_decay"],
            warmup_steps=round(hyper["warmup"] * steps),
            # Products in bfloat16, weights and their updates in float32; never float16, in which T5 overflows.
            bf16=gpu and torch.cuda.is_bf16_supported(),
            seed=hyper["seed"],
            data_seed=hyper["seed"],
            logging_steps=max(1, steps // 50),
            eval_strategy="epoch" if watched else "no",
            save_strategy="no",  # TimedCheckpoints decides
            save_total_limit=2,
            label_names=["labels"],
            remove_unused_columns=False,
            report_to="none",
            disable_tqdm=True,
            use_cpu=not gpu,
            # Processes without GPUs find each other only where the backend is named.
            ddp_backend="gloo" if processes.count() > 1 and not gpu else None,
            dataloader_pin_memory=gpu,
        ),
        train_dataset=data,
        eval_dataset=watched,
        data_collator=_weighted(family.collator(model, tokenizer)),
        compute_metrics=_measures,
        callbacks=[
            QuietProgress("training"),
            TimedCheckpoints(checkpoint_seconds, math.ceil(len(data) / hyper["batch_size"])),
            *([EarlyStopping(hyper["early_stopping"])] if hyper.get("early_stopping") else []),
        ],
    )
    trainer.remove_callback(PrinterCallback)
    if trainer.args.world_size != processes.count():  # each would train alone, on the same rows
        raise Failure(f"{processes.count()} processes were started, {trainer.args.world_size} found each other")
    return trainer
