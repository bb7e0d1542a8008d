"""Show the progress of a training."""

from typing import Any

from transformers import TrainerCallback

from mllm.core.messages import progress


class QuietProgress(TrainerCallback):
    """A bar on the terminal and plain lines in the log, instead of the Trainer's own output."""

    def __init__(self, what: str):
        self.what = what
        self.steps: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        left = state.max_steps - state.global_step
        self.steps = progress(range(left), self.what, total=left, unit="step")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        next(self.steps, None)
