"""Adapt transformers' Trainer: the families' losses, and its settings."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from mllm.core import gpu
from mllm.models import frozen, processes
from mllm.models.families import Family, Row
from mllm.models.training_rows import ByLength


class Begun(TrainerCallback):
    """Tells the order its epoch when a training begins or resumes, since not all of accelerate's wrappers do."""

    def __init__(self, order: ByLength):
        self.order = order

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.order.set_epoch(state.global_step // math.ceil(len(self.order) / self.order.batch))


class FamilyTrainer(Trainer):
    """The Trainer with a family's loss: the mean of the reviews' weighted losses. Frozen modules have no dropout."""

    def __init__(self, family: Family, order: ByLength, still: frozen.Frozen | None, **more: Any):
        self.family, self.order, self.still = family, order, still
        super().__init__(**more)
        # Losses are means over the given rows, whatever the other arguments are: the Trainer must divide by the parts.
        # It asks the model inside the adapters, so that the model cannot tell it.
        self.model_accepts_loss_kwargs = False
        self.add_callback(Begun(order))

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        inputs = dict(inputs)
        weights, states = inputs.pop("weights"), inputs.pop("states", None)
        with self.still.at_rest(states) if self.still else nullcontext():
            losses, right = self.family.losses(model, inputs)
        loss = (weights * losses).mean()
        return (loss, {"losses": losses, "right": right}) if return_outputs else loss

    def _get_train_sampler(self, train_dataset: Any = None) -> ByLength:
        return self.order


def measures(rows: list[Row]) -> Callable[[Any], dict[str, float]]:
    """Return a function that measures an evaluation: mean negative log-likelihood of the true answers, and accuracy.

    For rows of several tasks, each is the mean of the tasks' means: each task counts the same.
    """
    task = np.array([row.get("task", 0) for row in rows])

    def measure(found: Any) -> dict[str, float]:
        losses, right = found.predictions
        own = [task == t for t in np.unique(task)]
        return {
            "nll": round(float(np.mean([losses[at].mean(dtype=float) for at in own])), 6),
            "accuracy": round(float(np.mean([right[at].mean() for at in own])), 6),
        }

    return measure


def weighted(
    collate: Callable[[list[Row]], dict[str, torch.Tensor]],
) -> Callable[[list[Row]], dict[str, torch.Tensor]]:
    """Return a function that makes a batch of rows with what the loss needs: weights, and rows' heads and states if any."""

    def batch(rows: list[Row]) -> dict[str, torch.Tensor]:
        made = {**collate(rows), "weights": torch.tensor([row["weight"] for row in rows])}
        if "head" in rows[0]:
            made["head"] = torch.tensor([row["head"] for row in rows])
        if "states" in rows[0]:
            made["states"] = frozen.pad([row["states"] for row in rows], made["input_ids"].shape[1])
        return made

    return batch


def arguments(hyper: dict[str, Any], rows: int, watched: bool, parts: int, folder: Path) -> TrainingArguments:
    """Return the Trainer's settings for a number of rows, with each batch computed in ``parts`` parts."""
    there = torch.cuda.is_available()
    steps = hyper.get("steps") or max(1, round(per_epoch(rows, hyper) * hyper["epochs"]))
    size = hyper["batch_size"] // parts // processes.count()
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=size,
        per_device_eval_batch_size=size,
        gradient_accumulation_steps=parts,
        learning_rate=hyper["learning_rate"],
        weight_decay=hyper["weight_decay"],
        warmup_steps=round(hyper["warmup"] * steps),
        # Products in bfloat16, weights and their updates in float32; never float16, in which T5 overflows.
        bf16=gpu.has_bfloat16(),
        seed=hyper["seed"],
        data_seed=hyper["seed"],
        logging_steps=max(1, steps // 50),
        # This filter reads the loss after every step, and so waits for the GPU; fine_tune checks the weights at the end.
        logging_nan_inf_filter=False,
        eval_strategy="epoch" if watched else "no",
        save_strategy="no",  # TimedCheckpoints decides
        save_total_limit=2,
        label_names=["labels"],
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
        use_cpu=not there,
        # Processes without GPUs find each other only if the backend is named.
        ddp_backend="gloo" if processes.count() > 1 and not there else None,
        dataloader_pin_memory=there,
        accelerator_config={"non_blocking": there},
    )


def per_epoch(rows: int, hyper: dict[str, Any]) -> int:
    """Return the number of optimiser steps of an epoch."""
    return math.ceil(rows / hyper["batch_size"])
