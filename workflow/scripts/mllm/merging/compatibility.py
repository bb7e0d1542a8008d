"""Check that checkpoints can be merged: their tensors, labels, tokenizers and architectures must agree.

mergekit merges checkpoints with permuted labels, other tokenizers or other hyper-parameters silently if their shapes
agree.
"""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mllm.core.errors import Failure
from mllm.core.files import read_json
from mllm.merging.tensor_files import Weights
from mllm.models.checkpoint_files import check_labels, label_names
from mllm.models.tokenizers import FILES, ODD, SAMPLES, load_tokenizer

BLEND = "only weights of one architecture can be merged. Fix: blend their predictions (blends: in the experiment)"
# Keys of a configuration that do not change the function that the weights compute.
SILENT = {
    "_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache", "id2label", "label2id", "num_labels",
    "_num_labels", "problem_type", "finetuning_task", "task_specific_params", "gradient_checkpointing", "output_past",
    "is_decoder_only", "keys_to_ignore_at_inference", "initializer_range", "initializer_factor",
}  # fmt: skip
SPECIAL = ("", "<|endoftext|></s>[SEP]")


def open_alike(
    folders: dict[str, Path], donor: Path, part: Callable[[str], bool] | None = None
) -> tuple[dict[str, Weights], list[str]]:
    """Open checkpoints, and refuse any that cannot be merged with the donor.

    Args:
        folders: of the checkpoints, by name.
        donor: the folder that all others must agree with.
        part: tells by a tensor's name whether to merge it. Without it, all are merged, and labels must be the donor's.

    Returns:
        The checkpoints by name, and the sorted names of the tensors to merge.

    Raises:
        Failure: a checkpoint is incomplete, or its labels, tokenizer, architecture, tensors or shapes differ from the
            donor's.
    """
    for folder in folders.values():
        if part is None:
            check_labels(folder, label_names(donor))
        check_config(folder, donor)
        check_tokenizer(folder, donor)
    expected = Weights(donor)
    opened = {name: expected if folder == donor else Weights(folder) for name, folder in folders.items()}
    names = [n for n in _without_copies([expected, *opened.values()]) if part is None or part(n)]
    for weights in opened.values():
        _check_tensors(weights, expected, names)
    return opened, names


def check_config(folder: Path, donor: Path, called: Path | None = None) -> None:
    """Refuse another architecture, or another value of a setting that changes the function but no tensor's shape.

    Args:
        folder: holds the configuration to check.
        donor: holds the configuration to agree with.
        called: the folder's name in errors, where the folder is a copy.
    """
    ours, theirs = read_json(donor / "config.json"), read_json(folder / "config.json")
    shown = (called or folder) / "config.json"
    for key in ("architectures", "model_type"):
        if ours.get(key) != theirs.get(key):
            raise Failure(f"{shown}: {key} is {theirs.get(key)}, in {donor} it is {ours.get(key)}; {BLEND}")
    if not _differences(ours, theirs):
        return
    # A file may leave out the defaults of its transformers version: let transformers fill them in before comparing.
    # Keys that the class does not know (a training tool's own) change nothing.
    from transformers import AutoConfig

    try:
        read = [AutoConfig.from_pretrained(f, trust_remote_code=False) for f in (donor, folder)]
        known = type(read[0])().to_dict().keys()
        ours, theirs = ({k: v for k, v in c.to_dict().items() if k in known} for c in read)
    except Exception as error:  # a class can refuse its configuration in many ways
        raise Failure(f"{shown}: cannot be compared with {donor}'s: {(str(error).splitlines() or [''])[0]}") from None
    for key in _differences(ours, theirs):
        raise Failure(
            f"{shown}: {key} is {json.dumps(theirs.get(key), default=str)}, in {donor} it is"
            f" {json.dumps(ours.get(key), default=str)}; such models use their weights differently. Fix: blend their"
            " predictions instead of merging"
        )


def _differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    keys = sorted((ours.keys() | theirs.keys()) - SILENT)
    silent = ("dropout", "drop", "pdrop")
    return [k for k in keys if not k.endswith(silent) and "dropout" not in k and ours.get(k) != theirs.get(k)]


def check_tokenizer(folder: Path, donor: Path) -> None:
    """Refuse a tokenizer that numbers tokens or splits texts in another way: its embeddings mean other words.

    Equal files are accepted unread. Others are loaded and compared, since libraries write equal tokenizers in different
    ways.
    """
    files = [
        {n: (f / n).read_bytes() for n in (*FILES, "tokenizer_config.json") if (f / n).exists()}
        for f in (folder, donor)
    ]
    if files[0] and (files[0] == files[1] or _between_uses(files[0]) == _between_uses(files[1])):
        return
    theirs, ours = (load_tokenizer(f) for f in (folder, donor))
    vocabularies = theirs.get_vocab(), ours.get_vocab()
    if vocabularies[0] != vocabularies[1]:
        apart = set(vocabularies[0].items()) ^ set(vocabularies[1].items())
        word = min(word for word, _ in apart)
        numbers = [v.get(word, "none") for v in vocabularies]
        what = f"{word!r} is {numbers[0]} here and {numbers[1]} there"
    else:
        texts = [t for t in (*SAMPLES, *ODD, *SPECIAL) if _read(theirs, t) != _read(ours, t)]
        what = (
            f"{texts[0]!r} becomes {_read(theirs, texts[0])[:8]} here and {_read(ours, texts[0])[:8]} there"
            if texts
            else ""
        )
    if what:
        raise Failure(
            f"{folder}: another tokenizer than {donor}'s: {what}; the rows of its embeddings belong to other tokens."
            " Fix: blend their predictions instead of merging"
        )


def _between_uses(files: dict[str, bytes]) -> dict[str, Any]:
    """A tokenizer's files without how its last use padded and cut texts: a training leaves that in tokenizer.json."""
    with contextlib.suppress(KeyError, ValueError, AttributeError):  # no such file, or a damaged one: it is as it is
        parts = json.loads(files["tokenizer.json"])
        return {**files, "tokenizer.json": {k: v for k, v in parts.items() if k not in ("padding", "truncation")}}
    return dict(files)


def _read(tokenizer: Any, text: str) -> list[int]:
    found: list[int] = tokenizer(text, split_special_tokens=True, verbose=False, truncation=False)["input_ids"]
    return found


def _without_copies(checkpoints: list[Weights]) -> list[str]:
    """Return the sorted names of all tensors, without copies of other tensors that some checkpoint leaves out.

    T5's files, for example, may or may not repeat the shared embeddings as the encoder's and the decoder's.
    """
    names = sorted({name for weights in checkpoints for name in weights})
    everywhere = [n for n in names if all(n in w for w in checkpoints)]
    missing = sorted(set(names) - set(everywhere))
    copies = {n for n in missing if all(n not in w or _repeats(w, n, everywhere) for w in checkpoints)}
    return [n for n in names if n not in copies]


def _repeats(weights: Weights, name: str, among: list[str]) -> bool:
    alike = [n for n in among if weights.shape(n) == weights.shape(name) and len(weights.shape(n)) == 2]
    own = weights.read(name) if alike else None
    return any(own is not None and torch.equal(weights.read(n), own) for n in alike)


def _check_tensors(weights: Weights, expected: Weights, wanted: list[str]) -> None:
    found, donor = weights.folder, expected.folder
    for what, one, other in (("lacks", expected, weights), ("has", weights, expected)):
        names = [n for n in wanted if n in one and n not in other]
        if names:
            raise Failure(
                f"{found}: {what} {len(names)} tensors that {donor} {'has' if what == 'lacks' else 'lacks'}, "
                f"the first: {min(names)}; {BLEND}"
            )
    for name in wanted:
        if name in expected and weights.shape(name) != expected.shape(name):
            raise Failure(f"{found}: {name} has shape {weights.shape(name)}, in {donor} it is {expected.shape(name)}")
