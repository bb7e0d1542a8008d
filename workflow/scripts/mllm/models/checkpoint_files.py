"""Read and write model folders in Hugging Face's format, safetensors only; refuse half-written or foreign ones."""

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mllm.core.errors import Failure
from mllm.core.files import read_json
from mllm.models import cards

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
POINTER = b"version https://git-lfs"


def again(folder: Path) -> str:
    """Return the fix for a damaged checkpoint: delete what this project can rebuild, but never a user's own folder."""
    return f"delete {folder} and rerun" if "results" in folder.parts else "copy or download the complete folder again"


def check_usable(folder: Path) -> None:
    """Refuse a folder that is not a mergeable checkpoint of transformers, and name its kind.

    Raises:
        Failure: it is missing or a file, or it holds an adapter or weights in 8 or 4 bits.
    """
    if not folder.is_dir():
        what = "a file" if folder.exists() else "nothing"
        raise Failure(f"{folder}: found {what}, expected a folder with config.json and model.safetensors")
    if (folder / "adapter_config.json").exists():
        raise Failure(
            f"{folder}: a LoRA adapter (adapter_config.json), not a complete model. Fix: fold it into its base first"
            " (peft: model.merge_and_unload().save_pretrained(…))"
        )
    config = read_json(folder / "config.json") if (folder / "config.json").exists() else {}
    if not isinstance(config, dict):
        raise Failure(f"{folder / 'config.json'}: found no map, expected a configuration of transformers")
    if config.get("quantization_config"):
        how = config["quantization_config"].get("quant_method", "few bits")
        raise Failure(
            f"{folder}: its weights are quantised ({how}), and cannot be merged or compared. Fix: use the original weights,"
            " or dequantise them (model.dequantize().save_pretrained(…))"
        )


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a checkpoint, one or several shards.

    Raises:
        Failure: there are none, or the index names missing files.
    """
    if (folder / INDEX).exists():
        files = sorted({folder / name for name in read_json(folder / INDEX)["weight_map"].values()})
    else:
        files = [folder / WEIGHTS]
    absent = [f for f in files if not f.exists()]
    if absent:
        pickles = sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pt"))
        why = f"; {pickles[0].name} is a pickle, which can run code and is refused" if pickles else ""
        raise Failure(f"{folder}: {absent[0].name} is missing{why}; expected a checkpoint in safetensors format")
    return files


def check_whole(folder: Path) -> list[tuple[Path, dict[str, Any], int]]:
    """Refuse an incomplete checkpoint; this reads only the headers of its files.

    Returns:
        Each safetensors file with its header and the position at which its tensors begin.

    Raises:
        Failure: a file is missing, or shorter or longer than its header says.
    """
    if not (folder / "config.json").exists():
        raise Failure(f"{folder}: config.json is missing; the checkpoint is incomplete. Fix: {again(folder)}")
    found = []
    for file in weight_files(folder):
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            try:
                if not 0 < length <= size - 8:
                    raise ValueError
                header = json.loads(stream.read(length))
            except ValueError:
                raise Failure(f"{file}: {_no_weights(file)}") from None
        end = max((t["data_offsets"][1] for name, t in header.items() if name != "__metadata__"), default=0)
        if size != 8 + length + end:
            raise Failure(
                f"{file}: the file is cut or damaged (found {size:,} bytes, expected {8 + length + end:,} by its header)."
                f" Fix: {again(folder)}"
            )
        found.append((file, header, 8 + length))
    return found


def _no_weights(file: Path) -> str:
    with file.open("rb") as stream:
        if stream.read(len(POINTER)) == POINTER:
            return "a pointer of Git LFS, not the weights. Fix: git lfs pull"
    return f"not a safetensors file, or only its beginning. Fix: {again(file.parent)}"


def parameters(folder: Path) -> int:
    """Return the number of values in a checkpoint, by the headers of its files."""
    headers = [header for _, header, _ in check_whole(folder)]
    return sum(math.prod(t["shape"]) for h in headers for name, t in h.items() if name != "__metadata__")


def label_names(folder: Path) -> list[str]:
    """Return the class names of a classifier in the order of its outputs."""
    mapping = read_json(folder / "config.json").get("id2label") or {}
    return [str(mapping[key]) for key in sorted(mapping, key=int)]


def name_labels(folder: Path, names: list[str]) -> None:
    """Write the class names into a classifier's configuration, in the order of its outputs; skip other models."""
    config = read_json(folder / "config.json")
    if label_names(folder) not in ([], names) and len(label_names(folder)) == len(names):
        config["id2label"] = {str(i): name for i, name in enumerate(names)}
        config["label2id"] = {name: i for i, name in enumerate(names)}
        (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def check_labels(folder: Path, expected: list[str]) -> None:
    """Refuse a classifier whose outputs mean other classes, or the same ones in another order."""
    found = label_names(folder)
    if found != expected:
        what = "the same labels in another order" if sorted(found) == sorted(expected) else "other labels"
        raise Failure(
            f"{folder / 'config.json'}: id2label has {what} (found {', '.join(found)}; expected {', '.join(expected)}):"
            f" its outputs cannot be compared or merged with the others'"
        )


def digest(folder: Path) -> str:
    """Return the SHA-256 of the weights, hexadecimal."""
    total = hashlib.sha256()
    for file in weight_files(folder):
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                total.update(block)
    return total.hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of the libraries that determine weights and predictions."""
    from importlib.metadata import version

    return {name: version(name) for name in ("mergekit", "safetensors", "tokenizers", "torch", "transformers")}


def save(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", folder: Path, card: cards.Card) -> None:
    """Write a model folder with its card."""
    model.save_pretrained(folder, max_shard_size="100GB")
    tokenizer.save_pretrained(folder)
    replace(card, versions=versions()).write(folder / cards.FILE)
