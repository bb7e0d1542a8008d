"""Load checkpoints; only this module compares loaded weights with their files, in both directions."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mllm.core.errors import Failure
from mllm.core.messages import log
from mllm.models import families
from mllm.models.checkpoint_files import check_usable, check_whole, weight_files
from mllm.models.heads import head_modules
from mllm.models.tokenizers import load_tokenizer
from mllm.models.transformers_private import names

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

HEADLESS = ("pooler",)  # part of a body: some classifiers have it, most pretrained checkpoints do not need it


def read_state(folder: Path) -> "dict[str, torch.Tensor]":
    """Read all tensors of a checkpoint by name, sorted by name."""
    from safetensors.torch import load_file

    check_whole(folder)
    state: dict[str, torch.Tensor] = {}
    for file in weight_files(folder):
        state.update(load_file(file))
    return dict(sorted(state.items()))


def load_model(
    folder: Path, family: str = "classifier", spread: bool = False, **how: Any
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Load a complete model, by default in float32, and its tokenizer, whose ``model_max_length`` is the longest input.

    ``spread`` distributes its layers over all GPUs, by accelerate; ``how`` goes to ``from_pretrained``.

    Raises:
        Failure: a weight is missing, unused, misshapen or changed by loading; there is no tokenizer.
    """
    import torch

    if spread and torch.cuda.device_count() > 1:
        how["device_map"] = "balanced"
    return load_weights(folder, family, headless=False, **how), load_tokenizer(folder)


def without_weights(folder: Path, family: str) -> "PreTrainedModel":
    """Make a model of its family's class without weights or memory, for questions that its configuration answers."""
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with torch.device("meta"):
        model: PreTrainedModel = getattr(transformers, families.load(family).AUTO).from_config(config)
    return model


def load_weights(folder: Path, family: str, headless: bool, **how: Any) -> "PreTrainedModel":
    """Load a model by its family's class, with every weight as in its files.

    Args:
        folder: a checkpoint in safetensors format.
        family: the family whose class of transformers loads it.
        headless: whether a classifier's head may be missing or of another shape; it must be drawn anew then.
        how: arguments of ``from_pretrained``.

    Raises:
        Failure: it cannot be loaded; a weight is missing, unused, misshapen or changed by loading.
    """
    kind = families.load(family)
    model, report = _loaded(folder, kind.AUTO, kind.WHAT, **how)
    head = head_modules(model) if family == families.HEADED and headless else []
    _check_names(model, folder, report, head, kind.WHAT)
    check_values(model, folder, head)
    return model


def load_body(folder: Path) -> "PreTrainedModel":
    """Load a model without any head, in float32, with every weight as in its files.

    Raises:
        Failure: as in :func:`load_weights`.
    """
    model, report = _loaded(folder, "AutoModel", "a model without a head")
    _check_names(model, folder, report, [], "a model without a head")
    check_values(model, folder)
    return model


def load_into(model: Any, file: Path) -> None:
    """Load a model's trained parameters from a file that holds only these.

    Raises:
        Failure: a parameter is missing in the file, or fits no module.
    """
    from safetensors.torch import load_file

    state = load_file(file)
    lost = [n for n, p in model.named_parameters() if p.requires_grad and n not in state]
    strange = model.load_state_dict(state, strict=False).unexpected_keys
    if lost or strange:
        what = f"lacks {lost[0]}" if lost else f"holds {strange[0]}, which fits no module"
        raise Failure(f"{file}: {what}. Fix: delete it and rerun; the training then starts over")


def _loaded(folder: Path, auto: str, what: str, **how: Any) -> "tuple[PreTrainedModel, dict[str, Any]]":
    """Load a model with transformers, and return its report of names: missing, unexpected, mismatched."""
    import transformers
    from transformers import logging

    check_usable(folder)
    check_whole(folder)
    logging.disable_progress_bar()
    said = logging.get_verbosity()
    logging.set_verbosity_error()  # its report of loading is checked here
    how.setdefault("dtype", "float32")
    try:
        model, report = getattr(transformers, auto).from_pretrained(
            folder, use_safetensors=True, trust_remote_code=False, ignore_mismatched_sizes=True,
            output_loading_info=True, **how,
        )  # fmt: skip
    except Exception as error:  # from several libraries, also for configurations from which no model can be built
        if "out of memory" in str(error).lower():
            raise
        first = (str(error).splitlines() or [""])[0]
        raise Failure(f"{folder}: cannot be loaded as {what}: {type(error).__name__}: {first}") from error
    finally:
        logging.set_verbosity(said)
    return model, report


def _check_names(model: Any, folder: Path, report: dict[str, Any], head: list[str], what: str) -> None:
    """Refuse weights of the model that the files lack, and tensors of the files that fit none of its modules.

    Args:
        model: the model as loaded.
        folder: the folder it was loaded from.
        report: the report of ``from_pretrained``: missing, unexpected and mismatched names.
        head: modules whose weights will be drawn anew.
        what: the model's kind, in words.
    """
    body = f"{model.base_model_prefix}."
    unused = sorted({*report["unexpected_keys"], *_left_out(model, folder)})
    strange = [name for name in unused if _belongs_to_body(model, name)]
    lost = sorted(n for n in report["missing_keys"] if not _may_be_missing(n, body, head))
    if strange:
        raise Failure(
            f"{folder}: {len(strange)} of its tensors fit no module of {what} of type {model.config.model_type} (the first:"
            f" {strange[0]}). Fix: rename them, or correct config.json, so that transformers uses each"
        )
    if lost:
        raise Failure(
            f"{folder}: {len(lost)} weights of {what} of type {model.config.model_type} are missing (the first: {lost[0]}),"
            f" and would be random{_seen(unused)}. Fix: take a checkpoint that has them"
        )
    for name, found, expected in sorted(report["mismatched_keys"]):
        if name.split(".")[0] not in head:
            raise Failure(
                f"{folder}: {name}: found shape {tuple(found)}, expected {tuple(expected)} by its config.json. Fix: save the"
                " checkpoint again with transformers, so that both agree"
            )
    drawn = sorted(n for n in report["missing_keys"] if n.split(".")[0] not in head)
    if drawn and head:
        log.info("%s: %s are not in the file; they are drawn from the seed, like the head", folder, ", ".join(drawn))
    if unused:
        log.info("%s: not used, heads for something else: %s", folder, ", ".join(unused))


def _left_out(model: Any, folder: Path) -> Iterator[str]:
    """Yield the tensors that transformers skips by a pattern for a buffer that matches only a part of their name.

    GPT-2's pattern for the mask ``attn.bias`` also matches in ``h.9.attn.c_attn.bias``.
    """
    own, prefix = model.state_dict().keys(), f"{model.base_model_prefix}."
    held = {name for _, header, _ in check_whole(folder) for name in header if name != "__metadata__"}
    for name in held:
        if not {name, prefix + name, name.removeprefix(prefix)} & own:
            found = [m.start() for p in names.passed_over(model) for m in re.finditer(p, name)]
            if found and not any(i == 0 or "." in name[i - 1 : i + 1] for i in found):
                yield name


def _seen(unused: list[str]) -> str:
    return f"; instead the file has {unused[0]}" if unused else ""


def _may_be_missing(name: str, body: str, head: list[str]) -> bool:
    first = name.removeprefix(body).split(".")[0]
    return bool(head) and (name.split(".")[0] in head or (name.startswith(body) and first in HEADLESS))


def _belongs_to_body(model: Any, name: str) -> bool:
    """Return whether a tensor that fits no module is part of a model, and not another task's head.

    It is if its name begins with a part of the body, or is a weight's name with a prefix (``module.…``).
    """
    body = getattr(model, model.base_model_prefix, model)
    parts = {part for part, _ in body.named_children()} - set(HEADLESS)
    steps = name.split(".")
    if steps[0] == model.base_model_prefix:
        steps = steps[1:]
    if steps[0] in HEADLESS:
        return False
    own = model.state_dict().keys()
    shorter = [".".join(steps[i:]) for i in range(len(steps) - 1)]
    return steps[0] in parts or any(
        s in own or f"{model.base_model_prefix}.{s}" in own for s in shorter if s.count(".") > 1
    )


def check_values(model: Any, folder: Path, anew: Iterable[str] = ()) -> None:
    """Refuse a model whose weights differ from its files.

    transformers ties the weights that a configuration calls tied, even if the file holds others: T5's output head once
    replaced its embeddings silently.

    Args:
        model: the model as loaded; weights that are offloaded to disk are skipped.
        folder: the folder it was loaded from.
        anew: modules whose weights are drawn anew.

    Raises:
        Failure: a tensor differs from the file's, or holds NaN.
    """
    import torch

    own, prefix = model.state_dict(), f"{model.base_model_prefix}."
    for name, value in read_state(folder).items():
        mine = next((own[n] for n in (name, prefix + name, name.removeprefix(prefix)) if n in own), None)
        # None: read under another name (an older library's, or several tensors in one), or another task's head.
        if mine is None or mine.is_meta or name.split(".")[0] in anew:
            continue
        if mine.shape == value.shape and torch.equal(mine.cpu(), value.to(mine.dtype)):
            continue
        if value.is_floating_point() and value.isnan().any():
            raise Failure(f"{folder}: {name} holds NaN values. Fix: use a checkpoint from before its training diverged")
        raise Failure(
            f"{folder}: {name} differs from the file once {type(model).__name__} has loaded it: the configuration ties or"
            " shapes it differently. Fix: correct config.json (tie_word_embeddings?)"
        )
