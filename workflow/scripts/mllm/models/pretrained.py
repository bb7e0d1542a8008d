"""Bases made of pretrained checkpoints: a classifier's head is drawn once, all else stays as it is."""

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
    """A pretrained checkpoint; a classifier with a new head, drawn from ``seed`` alone, others as they are.

    Raises:
        Failure: a weight that the files lack or that fits nothing, no tokenizer, code of its own; more tokens than
            positions or embeddings, no token to pad with.
    """
    from transformers import set_seed

    classifier = family == families.HEADED
    set_seed(seed)
    model = load_weights(folder, family, headless=classifier, **(label_config(names) if classifier else {}))
    # A checkpoint's own head, if it has one of the right size, was loaded: draw it anew all the same.
    head_names = head_modules(model) if classifier else []
    for name in head_names:
        heads.draw(model, name, seed)
    return model, ready(model, load_tokenizer(folder), folder, max_length, classifier)


def as_it_is(folder: Path, family: str, max_length: int) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """A fine-tuned checkpoint with its own head and tokenizer.

    Raises:
        Failure: as of :func:`from_checkpoint`, for the head too.
    """
    model = load_weights(folder, family, headless=False)
    return model, ready(model, load_tokenizer(folder), folder, max_length, family == families.HEADED)


def ready(model: Any, tokenizer: Any, folder: Path, max_length: int, classifier: bool) -> "PreTrainedTokenizerBase":
    """A checkpoint's tokenizer with a padding token and its longest input, fit for the model, which learns the padding.

    Raises:
        Failure: more tokens than positions or embeddings, no token to pad with, no end where the model reads its answer there.
    """
    positions = _positions(model)
    if positions and max_length > positions:
        raise Failure(f"models: max_length is {max_length}, but {folder} has {positions} positions")
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
    """Tokens that a model has positions for; none where it counts distances. RoBERTa's first ones stand for padding."""
    try:
        found = getattr(model.config, "max_position_embeddings", None)
    except NotImplementedError:  # XLNet has no limit, and says so in this way, or by -1
        return None
    if found is None or found < 0:
        return None
    tables = [module for name, module in model.named_modules() if name.endswith("position_embeddings")]
    padding = next((t.padding_idx for t in tables if getattr(t, "padding_idx", None) is not None), None)
    return found if padding is None else found - padding - 1
