"""One model of several tasks as files: a complete folder for each task, in which the weights they share are one file, linked."""

import json
import math
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mllm.core.errors import Failure
from mllm.models import cards, families, loading
from mllm.models.checkpoint_files import INDEX, WEIGHTS, check_whole
from mllm.models.checkpoint_files import parameters as all_parameters
from mllm.models.heads import head_modules

if TYPE_CHECKING:
    import torch

SHARD = "model-{:05}-of-{:05}.safetensors"  # as transformers names the parts of a checkpoint
Shapes = dict[str, tuple[int, ...]]


def write_task_folders(
    shared: "dict[str, torch.Tensor]",
    heads: "dict[str, dict[str, torch.Tensor]]",
    donors: dict[str, Path],
    output: Path,
) -> None:
    """Write ``output/<task>/`` for each task, complete but for its card: plain transformers loads each.

    Args:
        shared: tensors of all tasks, by name.
        heads: task -> the tensors of its own; none for a model without heads, which is one file then.
        donors: task -> a folder with its configuration, tokenizer and tensors' names and shapes.
        output: folder to write into.

    Raises:
        Failure: the tensors are not those that a donor's folder has, by name and shape.
    """
    from safetensors.torch import save_file

    first: Path | None = None
    for task, own in sorted(heads.items()):
        folder = output / task
        folder.mkdir(parents=True)
        parts = [folder / name for name in shard_names(2 if own else 1)]
        if first is None:
            save_file(shared, parts[0], metadata={"format": "pt"})
        else:
            link(first, parts[0])
        first = parts[0]
        if own:
            save_file(own, parts[1], metadata={"format": "pt"})
        complete(folder, donors[task])


def shard_names(number: int) -> list[str]:
    """The names of a checkpoint's files: transformers' own, for one or several."""
    return [WEIGHTS] if number == 1 else [SHARD.format(i + 1, number) for i in range(number)]


def complete(folder: Path, donor: Path) -> None:
    """Make a folder that holds weights alone a whole one: their index, and all that the donor has but weights and its card.

    Raises:
        Failure: the weights are not the donor's, by name and shape.
    """
    copy_but_weights(donor, folder)
    files = sorted(folder.glob("*.safetensors"))
    if len(files) > 1:
        write_index(folder, files)
    found, expected = shapes(folder), shapes(donor)
    apart = sorted(n for n in found.keys() | expected.keys() if found.get(n) != expected.get(n))
    if apart:
        name = apart[0]
        raise Failure(
            f"{folder}: tensor {name}: found {found.get(name, 'none')}, expected {expected.get(name, 'none')} as in {donor}."
            " Fix: delete both and rerun, so that both are made by the same versions"
        )


def write_index(folder: Path, files: list[Path]) -> None:
    """Write the index that says which file holds a tensor."""
    place: dict[str, str] = {}
    size = 0
    for file in files:
        header = header_of(file)
        place |= dict.fromkeys(header, file.name)
        size += max((t["data_offsets"][1] for t in header.values()), default=0)
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(place.items()))}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def header_of(file: Path) -> dict[str, Any]:
    """Name -> dtype, shape and place of each tensor in a safetensors file that was written here."""
    with file.open("rb") as stream:
        header: dict[str, Any] = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return {name: entry for name, entry in header.items() if name != "__metadata__"}


def shapes(folder: Path) -> Shapes:
    """Name -> shape of each tensor of a checkpoint, by the headers of its files."""
    headers = [header for _, header, _ in check_whole(folder)]
    return {n: tuple(t["shape"]) for header in headers for n, t in header.items() if n != "__metadata__"}


def head_names(model: Any) -> set[str]:
    """Names of a classifier's tensors that are its head's, as its files have them: all others can be another task's, too."""
    modules = head_modules(model)
    return {name for name in model.state_dict() if name.split(".")[0] in modules}


def heads_of(folder: Path) -> set[str]:
    """Names of a model's tensors that belong to one task alone, by its card's family; none where it is asked."""
    family = cards.read(folder).family
    if family != families.HEADED:
        return set()
    return head_names(loading.without_weights(folder, family)) & shapes(folder).keys()


def parameters(folders: list[Path]) -> int:
    """Number of values of one model with a folder for each task; what they share counts once."""
    heads = heads_of(folders[0])
    others = [shapes(folder) for folder in folders[1:]]
    return all_parameters(folders[0]) + sum(math.prod(found[name]) for found in others for name in heads)


def link(source: Path, target: Path) -> None:
    """Give a file a second name; a copy where the file system cannot."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def copy_but_weights(donor: Path, folder: Path) -> None:
    """Everything of a model folder that is not weights, nor the card of what made them."""
    own = {"model.json", INDEX}
    for file in sorted(donor.iterdir()):
        if file.is_file() and file.suffix != ".safetensors" and file.name not in own and not file.name.startswith("."):
            shutil.copyfile(file, folder / file.name)


def copy_linked(source: Path, target: Path) -> None:
    """Copy a folder of task folders; weights are linked, so that they take no room of their own."""
    shutil.copytree(
        source, target, copy_function=lambda a, b: link(Path(a), Path(b)) if a.endswith(".safetensors") else shutil.copyfile(a, b)
    )  # fmt: skip
