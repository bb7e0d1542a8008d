"""What may be merged: checkpoints whose tensors, labels, tokenizers and architectures say the same.

mergekit merges permuted labels, other tokenizers and other hyper-parameters of equal shapes without a word.
"""

import json
from pathlib import Path
from typing import Any

import torch

from mllm.core.errors import Failure
from mllm.core.files import read_json
from mllm.merging.tensor_files import Weights
from mllm.models.checkpoint_files import check_labels, label_names

BLEND = (
    "only weights of one architecture can be merged; for others, blend their predictions (blends: in the experiment)"
)
# Of a configuration: what says nothing about the function that the weights compute.
SILENT = {
    "_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache", "id2label", "label2id", "num_labels",
    "_num_labels", "problem_type", "finetuning_task", "task_specific_params", "gradient_checkpointing", "output_past",
    "is_decoder_only", "keys_to_ignore_at_inference", "initializer_range", "initializer_factor",
}  # fmt: skip
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt", "spiece.model", "tokenizer.model")


def open_alike(folders: dict[str, Path], donor: Path) -> tuple[dict[str, Weights], list[str]]:
    """Open checkpoints, and refuse any that cannot be merged with the donor.

    Returns:
        The checkpoints by name, and the names of the tensors to merge, sorted.

    Raises:
        Failure: a checkpoint is not whole, or its labels, tokenizer, architecture, tensors or shapes are not the donor's.
    """
    for folder in folders.values():
        check_labels(folder, label_names(donor))
        check_config(folder, donor)
        check_tokenizer(folder, donor)
    expected = Weights(donor)
    opened = {name: expected if folder == donor else Weights(folder) for name, folder in folders.items()}
    names = _without_copies([expected, *opened.values()])
    for weights in opened.values():
        _check_tensors(weights, expected, names)
    return opened, names


def check_config(folder: Path, donor: Path) -> None:
    """Refuse another architecture, or another value of what shapes the function and not the weights."""
    ours, theirs = read_json(donor / "config.json"), read_json(folder / "config.json")
    for key in ("architectures", "model_type"):
        if ours.get(key) != theirs.get(key):
            raise Failure(
                f"{folder / 'config.json'}: {key} is {theirs.get(key)}, in {donor} it is {ours.get(key)}; {BLEND}"
            )
    if _differences(ours, theirs):
        # A file may leave out what its transformers had as default: let transformers fill that in before the verdict.
        from transformers import AutoConfig

        try:
            loaded = [AutoConfig.from_pretrained(f, trust_remote_code=False).to_dict() for f in (donor, folder)]
        except (OSError, ValueError):
            loaded = [ours, theirs]
        for key in _differences(*loaded):
            raise Failure(
                f"{folder / 'config.json'}: {key} is {json.dumps(loaded[1].get(key))}, in {donor} it is "
                f"{json.dumps(loaded[0].get(key))}; weights that are used differently cannot be merged (blend them instead)"
            )


def _differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    keys = sorted((ours.keys() | theirs.keys()) - SILENT)
    silent = ("dropout", "drop", "pdrop")
    return [k for k in keys if not k.endswith(silent) and "dropout" not in k and ours.get(k) != theirs.get(k)]


def check_tokenizer(folder: Path, donor: Path) -> None:
    """Refuse a tokenizer that gives other numbers to tokens: its embeddings mean other words."""
    for name in TOKENIZER_FILES:
        ours, theirs = donor / name, folder / name
        if not ours.exists() and not theirs.exists():
            continue
        if not ours.exists() or not theirs.exists():
            if name == "tokenizer.json" or not (
                (donor / "tokenizer.json").exists() and (folder / "tokenizer.json").exists()
            ):
                raise Failure(
                    f"{folder}: {name} stands in only one of this folder and {donor}; expected the same tokenizer in both"
                )
            continue
        if ours.read_bytes() == theirs.read_bytes():
            continue
        what = _tokenizer_difference(_read_today(ours), _read_today(theirs)) if name == "tokenizer.json" else "bytes"
        if what:
            raise Failure(
                f"{theirs}: another tokenizer than {donor}'s (other {what}); the rows of its embeddings stand for other "
                f"tokens and cannot be merged (blend their predictions instead)"
            )


def _read_today(file: Path) -> dict[str, Any]:
    """A tokenizer as today's library writes it: older files say the same in other words."""
    from tokenizers import Tokenizer

    try:
        found: dict[str, Any] = json.loads(Tokenizer.from_file(str(file)).to_str())
    except Exception as error:  # the library raises nothing more special
        raise Failure(f"{file}: not a tokenizer that can be read ({error})") from None
    return found


def _tokenizer_difference(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """The part that makes other tokens of a text; padding and truncation, which training may set, do not."""
    parts = ("model", "added_tokens", "normalizer", "pre_tokenizer", "post_processor")
    return next((part for part in parts if ours.get(part) != theirs.get(part)), "")


def _without_copies(checkpoints: list[Weights]) -> list[str]:
    """Names of all tensors, sorted, without those that merely repeat another one and that some checkpoint leaves out.

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
