"""Fine-tuning by transformers' Trainer, resumable at any moment."""

# Over 250 lines: the Trainer, its settings and its attempts at smaller parts are read together.

import gc
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from mllm.core import gpu
from mllm.core.errors import Failure
from mllm.core.messages import log
from mllm.models import families, loading, lora, processes
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
from mllm.models.training_rows import ByLength, Reviews
from mllm.models.transformers_private.activations import fuse_gelu
from mllm.models.transformers_private.attention import fuse_t5_attention
from mllm.models.transformers_private.waiting import wait_for_nothing


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
        # Losses are means over the rows given, whatever is done with other arguments: the Trainer has to divide by the
        # parts. It asks the model inside of adapters, so that the model is no place to say it.
        self.model_accepts_loss_kwargs = False
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


@dataclass(frozen=True)
class Checkpoints:
    """Where and how often a training is saved.

    Args:
        folder: outlives the job; training resumes from the last whole checkpoint there.
        seconds: between checkpoints.
    """

    folder: Path
    seconds: float


def fine_tune(
    model: Any, tokenizer: Any, reviews: Reviews, family: str, hyper: dict[str, Any], checkpoints: Checkpoints
) -> tuple[Any, dict[str, Any]]:
    """Train a model on reviews; each of several processes with its share of each batch.

    Args:
        model: as loaded.
        tokenizer: its tokenizer.
        reviews: see :func:`prepare`.
        family: the model's.
        hyper: epochs or steps, learning_rate, batch_size, weight_decay, warmup (fraction), seed; lora, early_stopping.
        checkpoints: where the training is saved, and taken up again.

    Returns:
        The trained model, with adapters folded in; reviews, steps, loss and validation curves, parts that batches were
        computed in, number of cut reviews.

    Raises:
        Failure: GPU memory is too small for several processes; the weights are not finite at the end.
    """
    if hyper.get("lora"):
        model = lora.adapted(model, family, hyper["lora"], hyper["seed"])
    state, in_parts = _train_until_it_fits(model, tokenizer, reviews, family, hyper, checkpoints)
    curve = validation(state)
    if hyper.get("early_stopping") and curve:
        loading.load_into(model, checkpoints.folder / BEST)
    model = lora.folded(model) if hyper.get("lora") else model
    model.cpu()
    if not all(torch.isfinite(p).all() for p in model.parameters()):
        raise Failure(
            f"training diverged: weights are not finite (learning_rate is {hyper['learning_rate']}; try a smaller one)"
        )
    history = [p for p in state.log_history if "loss" in p]
    return model, {
        "reviews": len(reviews.train),
        "steps": state.global_step,
        "loss": [{"step": p["step"], "loss": round(float(p["loss"]), 6)} for p in history],
        "validation": curve,
        "batch_parts": in_parts,
        "cut_reviews": reviews.cut,
    }


def _train_until_it_fits(
    model: Any, tokenizer: Any, reviews: Reviews, family: str, hyper: dict[str, Any], checkpoints: Checkpoints
) -> tuple[Any, int]:
    """Train with each batch in one part, then in two, four, …, until the GPU's memory holds a part.

    The gradients of the parts are averaged: the same training, but for rounding, dropout and the weights of the rows in an
    epoch's last, smaller batch.

    Returns:
        The Trainer's last state, and the number of parts.
    """
    pristine = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
    parts = 1
    while True:
        trainer = _trainer(model, tokenizer, reviews, family, hyper, parts, checkpoints)
        rows, steps = f"{len(reviews.train):,}", trainer.args.max_steps
        log.info("training on %s reviews, %s steps of %s", rows, steps, hyper["batch_size"])
        try:
            last = processes.together(last_whole(checkpoints.folder) if processes.first() else None)
            trainer.train(resume_from_checkpoint=last)
            return trainer.state, parts
        except Over:
            return trainer.state, parts
        except torch.OutOfMemoryError:
            if processes.count() > 1:  # the others wait for this one's gradients
                raise Failure(
                    f"GPU memory is too small for {hyper['batch_size'] // processes.count()} reviews on each of"
                    f" {processes.count()} GPUs: a smaller batch_size, or more gpus"
                ) from None
            parts *= 2
            if hyper["batch_size"] % parts:
                raise
        log.info("GPU memory is too small: each batch goes in %d parts from now on", parts)
        del trainer
        _free(model)
        model.load_state_dict(pristine)


def _free(model: Any) -> None:
    """Give back what a failed training holds: gradients, and the Trainer with its optimizer, which refer to each other."""
    model.zero_grad(set_to_none=True)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _measures(found: Any) -> dict[str, float]:
    losses, right = found.predictions
    return {"nll": round(float(losses.mean(dtype=float)), 6), "accuracy": round(float(right.mean()), 6)}


def _weighted(
    collate: Callable[[list[Row]], dict[str, torch.Tensor]],
) -> Callable[[list[Row]], dict[str, torch.Tensor]]:
    return lambda rows: {**collate(rows), "weights": torch.tensor([row["weight"] for row in rows])}


def _arguments(hyper: dict[str, Any], rows: int, watched: bool, parts: int, folder: Path) -> TrainingArguments:
    """The Trainer's settings for so many rows, each batch computed in so many parts."""
    there = torch.cuda.is_available()
    steps = hyper.get("steps") or max(1, round(_per_epoch(rows, hyper) * hyper["epochs"]))
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
        # It would look at the loss after every step, and so wait for the GPU; fine_tune looks at the weights at the end.
        logging_nan_inf_filter=False,
        eval_strategy="epoch" if watched else "no",
        save_strategy="no",  # TimedCheckpoints decides
        save_total_limit=2,
        label_names=["labels"],
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
        use_cpu=not there,
        # Processes without GPUs find each other only where the backend is named.
        ddp_backend="gloo" if processes.count() > 1 and not there else None,
        dataloader_pin_memory=there,
        accelerator_config={"non_blocking": there},
    )


def _per_epoch(rows: int, hyper: dict[str, Any]) -> int:
    return math.ceil(rows / hyper["batch_size"])


def _trainer(
    model: Any,
    tokenizer: Any,
    reviews: Reviews,
    family: str,
    hyper: dict[str, Any],
    parts: int,
    checkpoints: Checkpoints,
) -> Trainer:
    """The Trainer of a model, each of whose batches is computed in so many parts."""
    gpu.settle_attention()
    if gpu.device() == "cuda":
        wait_for_nothing(model)
        fuse_gelu(model)
        fuse_t5_attention(model)
    of, rows = families.load(family), reviews.train
    stopping = [EarlyStopping(hyper["early_stopping"])] if hyper.get("early_stopping") else []
    trainer = FamilyTrainer(
        of,
        ByLength([len(row["input_ids"]) for row in rows], hyper["batch_size"], hyper["seed"]),
        model=model,
        args=_arguments(hyper, len(rows), bool(reviews.valid), parts, checkpoints.folder),
        train_dataset=rows,
        eval_dataset=reviews.valid,
        data_collator=_weighted(of.collator(model, tokenizer)),
        compute_metrics=_measures,
        callbacks=[
            QuietProgress("training"),
            TimedCheckpoints(checkpoints.seconds, _per_epoch(len(rows), hyper)),
            *stopping,
        ],
    )
    trainer.remove_callback(PrinterCallback)
    if trainer.args.world_size != processes.count():  # each would train alone, on the same rows
        raise Failure(f"{processes.count()} processes were started, {trainer.args.world_size} found each other")
    return trainer
