"""Make bases from pretrained checkpoints: draw a classifier's head once, and leave all other weights as they are."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mllm.core.errors import Failure
from mllm.models import families
from mllm.models.heads import head_modules, label_config
from mllm.models.loading import load_weights
from mllm.models.tokenizers import check_embedded, check_ended, load_tokenizer
from mllm.models.transformers_private import heads

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def from_checkpoint(
    folder: Path, family: str, names: list[Any], max_length: int, seed: int
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Load a pretrained checkpoint; a classifier gets a new head, drawn from ``seed`` only.

    Raises:
        Failure: a weight is missing or fits no module. The tokenizer or its padding token is missing. The model needs
            code of its own. There are more tokens than positions or embeddings.
    """
    from transformers import set_seed

    classifier = family == families.HEADED
    set_seed(seed)
    model = load_weights(folder, family, headless=classifier, **(label_config(names) if classifier else {}))
    # If the checkpoint has a head of the right size, it was loaded: draw it anew, too.
    head_names = head_modules(model) if classifier else []
    for name in head_names:
        heads.draw(model, name, seed)
    return model, ready(model, load_tokenizer(folder), folder, max_length, classifier)


def as_it_is(folder: Path, family: str, max_length: int) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Load a fine-tuned checkpoint with its own head and tokenizer.

    Raises:
        Failure: as in :func:`from_checkpoint`, also for the head.
    """
    model = load_weights(folder, family, headless=False)
    return model, ready(model, load_tokenizer(folder), folder, max_length, family == families.HEADED)


def ready(model: Any, tokenizer: Any, folder: Path, max_length: int, classifier: bool) -> "PreTrainedTokenizerBase":
    """Return a checkpoint's tokenizer with padding token and longest input; put the padding into the model's configuration.

    Raises:
        Failure: there are more tokens than positions or embeddings; there is no padding token, or no end token where
            the model reads its answer.
    """
    positions = _positions(model)
    if positions and max_length > positions:
        raise Failure(
            f"models: max_length is {max_length}, but {folder} has {positions} positions. Fix: max_length: {positions}"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    check_embedded(tokenizer, model, folder)
    if classifier and model.config.is_encoder_decoder:
        check_ended(tokenizer, model.config.eos_token_id, folder)
    model.config.pad_token_id = tokenizer.pad_token_id
    tokenizer.padding_side = "right"
    tokenizer.model_max_length = max_length
    return tokenizer


def _positions(model: Any) -> int | None:
    """Return the number of tokens that a model has positions for; None if it counts distances.

    RoBERTa reserves its first positions for padding.
    """
    try:
        found = getattr(model.config, "max_position_embeddings", None)
    except NotImplementedError:  # XLNet has no limit: it raises this, or has -1
        return None
    if found is None or found < 0:
        return None
    tables = [module for name, module in model.named_modules() if name.endswith("position_embeddings")]
    padding = next((t.padding_idx for t in tables if getattr(t, "padding_idx", None) is not None), None)
    return found if padding is None else found - padding - 1
