"""Fine-tune with transformers' Trainer; a training can resume at any moment."""

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer

from mllm.core import gpu
from mllm.core.errors import Failure
from mllm.core.messages import log
from mllm.models import families, frozen, frozen_states, loading, lora, processes
from mllm.models.trainer import FamilyTrainer, arguments, measures, per_epoch, weighted
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


@dataclass(frozen=True)
class Learner:
    """A model in training.

    Args:
        model: the model, with its adapters if it has any.
        tokenizer: its tokenizer.
        family: the name of its family.
        still: the part that is not trained.
    """

    model: Any
    tokenizer: Any
    family: str
    still: frozen.Frozen | None


@dataclass(frozen=True)
class Checkpoints:
    """Where and how often a training is saved.

    Args:
        folder: a folder that outlives the job; training resumes from its last complete checkpoint.
        seconds: seconds between checkpoints.
    """

    folder: Path
    seconds: float


def fine_tune(
    model: Any, tokenizer: Any, reviews: Reviews, family: str, hyper: dict[str, Any], checkpoints: Checkpoints
) -> tuple[Any, dict[str, Any]]:
    """Train a model on reviews; each of several processes trains on its share of each batch.

    Args:
        model: the model as loaded.
        tokenizer: its tokenizer.
        reviews: see :func:`mllm.models.training_rows.prepare`.
        family: the name of the model's family.
        hyper: epochs or steps, learning_rate, batch_size, weight_decay, warmup (fraction), seed; lora, early_stopping, freeze,
            head_only.
        checkpoints: where the training is saved, and from where it resumes.

    Returns:
        The trained model, with adapters folded in; reviews, steps, loss and validation curves, number of parts of a
        batch, number of cut reviews.

    Raises:
        Failure: GPU memory is too small for several processes; the final weights are not finite; the model lacks the
            layers to freeze or the head to train.
    """
    still = frozen.part(model, family, hyper)
    reviews = frozen_states.remembered(still, model, tokenizer, reviews, family) if still else reviews
    if hyper.get("lora"):
        model = lora.adapted(model, family, hyper["lora"], hyper["seed"])
    if still:
        still.freeze()
    learner = Learner(model, tokenizer, family, still)
    state, in_parts = _train_until_it_fits(learner, reviews, hyper, checkpoints)
    curve = validation(state)
    if hyper.get("early_stopping") and curve:
        loading.load_into(model, checkpoints.folder / BEST)
    model = lora.folded(model) if hyper.get("lora") else model
    model.cpu()
    if not all(torch.isfinite(p).all() for p in model.parameters()):
        raise Failure(
            f"training diverged: weights are not finite. Fix: try a smaller learning_rate than {hyper['learning_rate']}"
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
    learner: Learner, reviews: Reviews, hyper: dict[str, Any], checkpoints: Checkpoints
) -> tuple[Any, int]:
    """Train with each batch in one part, then in two, four, …, until the GPU's memory holds a part.

    The gradients of the parts are averaged. The training is the same, except for rounding, dropout and the weights of
    the rows in an epoch's last, smaller batch.

    Returns:
        The Trainer's last state, and the number of parts.
    """
    model = learner.model
    pristine = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
    parts = 1
    while True:
        trainer = _trainer(learner, reviews, hyper, parts, checkpoints)
        rows, steps = f"{len(reviews.train):,}", trainer.args.max_steps
        log.info("training on %s reviews, %s steps of %s", rows, steps, hyper["batch_size"])
        try:
            last = processes.together(last_whole(checkpoints.folder) if processes.first() else None)
            trainer.train(resume_from_checkpoint=last)
            return trainer.state, parts
        except Over:
            return trainer.state, parts
        except torch.OutOfMemoryError:
            if processes.count() > 1:  # the other processes wait for this one's gradients
                raise Failure(
                    f"GPU memory is too small for {hyper['batch_size'] // processes.count()} reviews on each of"
                    f" {processes.count()} GPUs. Fix: use a smaller batch_size, or more gpus"
                ) from None
            parts *= 2
            if hyper["batch_size"] % parts:
                raise
        log.info("GPU memory is too small: each batch is computed in %d parts from now on", parts)
        del trainer
        _free(model)
        model.load_state_dict(pristine)


def _free(model: Any) -> None:
    """Free the memory of a failed training: gradients, and the Trainer with its optimizer, which refer to each other."""
    model.zero_grad(set_to_none=True)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _trainer(
    learner: Learner, reviews: Reviews, hyper: dict[str, Any], parts: int, checkpoints: Checkpoints
) -> Trainer:
    """Return the Trainer of a model, with each batch computed in ``parts`` parts."""
    model = learner.model
    gpu.settle_attention()
    if gpu.device() == "cuda":
        wait_for_nothing(model)
        fuse_gelu(model)
        fuse_t5_attention(model)
    of, rows = families.load(learner.family), reviews.train
    stopping = [EarlyStopping(hyper["early_stopping"])] if hyper.get("early_stopping") else []
    trainer = FamilyTrainer(
        of,
        ByLength([len(row["input_ids"]) for row in rows], hyper["batch_size"], hyper["seed"]),
        learner.still,
        model=model,
        args=arguments(hyper, len(rows), bool(reviews.valid), parts, checkpoints.folder),
        train_dataset=rows,
        eval_dataset=reviews.valid,
        data_collator=weighted(of.collator(model, learner.tokenizer)),
        compute_metrics=measures(reviews.valid),
        callbacks=[
            QuietProgress("training"),
            TimedCheckpoints(checkpoints.seconds, per_epoch(len(rows), hyper)),
            *stopping,
        ],
    )
    trainer.remove_callback(PrinterCallback)
    if trainer.args.world_size != processes.count():  # each would train alone, on the same rows
        raise Failure(f"processes: found {trainer.args.world_size} connected, expected {processes.count()}")
    return trainer
