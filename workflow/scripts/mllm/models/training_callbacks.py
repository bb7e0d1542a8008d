"""Save checkpoints of a training, and stop it early."""

import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from transformers import TrainerCallback

from mllm.core.files import whole
from mllm.core.messages import log
from mllm.models import processes

WHOLE = "whole"  # is written into a training checkpoint once all its other files are there
TOGETHER = 8  # steps after which several processes ask the first one whether to save; all wait for each other then
BEST = "best.safetensors"  # beside the checkpoints: the weights that were best on validation


class TimedCheckpoints(TrainerCallback):
    """Save at an interval, and when the job is told to end; mark a checkpoint as complete when all of it is on disk.

    At the end of an epoch, this saves after the evaluation, which draws random numbers: a resumed training would not
    repeat it.

    Args:
        seconds: seconds between checkpoints.
        per_epoch: number of steps of an epoch.
    """

    def __init__(self, seconds: float, per_epoch: int):
        self.seconds, self.per_epoch = seconds, per_epoch
        self.saved = time.monotonic()
        self.told = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        def tell(*_: Any) -> None:
            self.told = True

        signal.signal(signal.SIGTERM, tell)  # Slurm sends it before it takes a preempted job's node

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self.per_epoch:
            self._save_if_due(state, control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self.per_epoch == 0:
            self._save_if_due(state, control)

    def _save_if_due(self, state: Any, control: Any) -> None:
        if processes.count() > 1 and state.global_step % TOGETHER:
            return
        self.told, due = processes.together((self.told, time.monotonic() - self.saved >= self.seconds))
        control.should_save = control.should_save or ((self.told or due) and state.global_step < state.max_steps)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.saved = time.monotonic()
        processes.together(None)  # each process writes its own random state
        if processes.first():
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / WHOLE).touch()
        if self.told:
            step = state.global_step
            log.info("interrupted after step %s: its checkpoint is written; the same command resumes from it", step)
            sys.exit(128 + signal.SIGTERM)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


class Over(Exception):
    """Raised when a resumed training had already stopped early."""


class EarlyStopping(TrainerCallback):
    """Keep the weights that are best on validation; stop after ``patience`` evaluations in a row without improvement.

    This depends only on the history of evaluations, which checkpoints hold: a resumed training stops at the same step.
    """

    def __init__(self, patience: int):
        self.patience = patience

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._stop(state, control) >= self.patience:
            raise Over

    def on_evaluate(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        from safetensors.torch import save_file

        if processes.first() and self._stop(state, control) == 0:
            learned = {n: p.detach().cpu().contiguous() for n, p in model.named_parameters() if p.requires_grad}
            with whole(Path(args.output_dir) / BEST) as partial:
                save_file(learned, partial)

    def _stop(self, state: Any, control: Any) -> int:
        losses = [entry["loss"] for entry in validation(state)]
        since = len(losses) - 1 - int(np.argmin(losses)) if losses else 0
        control.should_training_stop = control.should_training_stop or since >= self.patience
        return since


def validation(state: Any) -> list[dict[str, float]]:
    """Return the evaluations so far: step, epoch, loss (mean negative log-likelihood of the true answers), accuracy."""
    return [
        {"step": p["step"], "epoch": round(p["epoch"], 4), "loss": p["eval_nll"], "accuracy": p["eval_accuracy"]}
        for p in state.log_history
        if "eval_nll" in p
    ]


def last_whole(checkpoints: Path) -> str | None:
    """Return the latest complete training checkpoint; remove half-written ones."""
    found = sorted(checkpoints.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    for folder in [f for f in found if not (f / WHOLE).exists()]:
        log.info("%s is half-written; it is removed", folder)
        shutil.rmtree(folder)
    whole = [f for f in found if f.exists()]
    if whole:
        log.info("resuming from %s", whole[-1])
    return str(whole[-1]) if whole else None
