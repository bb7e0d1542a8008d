"""Loading checkpoints, and checking that what was loaded is what the files hold."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mllm.core.errors import Failure
from mllm.models import families
from mllm.models.checkpoint_files import check_whole, weight_files

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def read_state(folder: Path) -> "dict[str, torch.Tensor]":
    """All tensors of a checkpoint by name, sorted by name."""
    from safetensors.torch import load_file

    check_whole(folder)
    state: dict[str, torch.Tensor] = {}
    for file in weight_files(folder):
        state.update(load_file(file))
    return dict(sorted(state.items()))


def load_model(
    folder: Path, family: str = "classifier", spread: bool = False, **how: Any
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """A model in float32, unless said, and its tokenizer, whose ``model_max_length`` is the longest input.

    ``spread`` puts its layers on all GPUs in turn, by accelerate; ``how`` goes to ``from_pretrained``.
    """
    import torch
    import transformers
    from transformers import AutoTokenizer, logging

    logging.disable_progress_bar()
    check_whole(folder)
    if spread and torch.cuda.device_count() > 1:
        how["device_map"] = "balanced"
    how.setdefault("dtype", "float32")
    model = getattr(transformers, families.load(family).AUTO).from_pretrained(folder, use_safetensors=True, **how)
    return model, AutoTokenizer.from_pretrained(folder)


def check_loaded(model: "PreTrainedModel", folder: Path, anew: list[str]) -> None:
    """Refuse a model whose weights are not its files'.

    transformers ties what a configuration calls tied whatever the file holds: T5's output head was once written over its
    embeddings without a word.

    Args:
        model: as loaded.
        folder: what it was loaded from.
        anew: modules whose weights were drawn anew.
    """
    import torch

    own, prefix = model.state_dict(), f"{model.base_model_prefix}."
    for name, value in read_state(folder).items():
        mine = next((own[n] for n in (name, prefix + name, name.removeprefix(prefix)) if n in own), None)
        if mine is None or name.split(".")[0] in anew:  # a head for something else
            continue
        if mine.shape != value.shape or not torch.equal(mine.cpu(), value.to(mine.dtype)):
            raise Failure(
                f"{folder}: {name} is not what the file holds once {type(model).__name__} has loaded it: the configuration"
                " ties or shapes it in another way (tie_word_embeddings?)"
            )
