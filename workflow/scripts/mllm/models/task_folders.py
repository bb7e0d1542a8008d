"""Write one model of several tasks: a complete folder for each task, with the shared weights as one linked file."""

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
    """Write ``output/<task>/`` for each task, complete except for its card: plain transformers loads each.

    Args:
        shared: tensors of all tasks, by name.
        heads: task -> its own tensors; empty for a model without heads, which then is one file.
        donors: task -> a folder with its configuration, tokenizer, and names and shapes of its tensors.
        output: folder to write into.

    Raises:
        Failure: the tensors differ from a donor's folder in name or shape.
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
    """Return the names of a checkpoint's files: transformers' own, for one or several."""
    return [WEIGHTS] if number == 1 else [SHARD.format(i + 1, number) for i in range(number)]


def complete(folder: Path, donor: Path) -> None:
    """Complete a folder that holds only weights: add their index, and the donor's files except weights and card.

    Raises:
        Failure: the weights differ from the donor's in name or shape.
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
    """Return name -> dtype, shape and place of each tensor in a safetensors file that this project wrote."""
    with file.open("rb") as stream:
        header: dict[str, Any] = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return {name: entry for name, entry in header.items() if name != "__metadata__"}


def shapes(folder: Path) -> Shapes:
    """Return name -> shape of each tensor of a checkpoint, by the headers of its files."""
    headers = [header for _, header, _ in check_whole(folder)]
    return {n: tuple(t["shape"]) for header in headers for n, t in header.items() if n != "__metadata__"}


def head_names(model: Any) -> set[str]:
    """Return the names of a classifier's head tensors, as in its files; several tasks can share all other tensors."""
    modules = head_modules(model)
    return {name for name in model.state_dict() if name.split(".")[0] in modules}


def heads_of(folder: Path) -> set[str]:
    """Return the names of a model's tensors that belong to one task only, by its card's family; none if it is asked."""
    family = cards.read(folder).family
    if family != families.HEADED:
        return set()
    return head_names(loading.without_weights(folder, family)) & shapes(folder).keys()


def parameters(folders: list[Path]) -> int:
    """Return the number of values of one model with a folder for each task; shared ones count once."""
    heads = heads_of(folders[0])
    others = [shapes(folder) for folder in folders[1:]]
    return all_parameters(folders[0]) + sum(math.prod(found[name]) for found in others for name in heads)


def link(source: Path, target: Path) -> None:
    """Give a file a second name; copy it if the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def copy_but_weights(donor: Path, folder: Path) -> None:
    """Copy the files of a model folder, except its weights and its card."""
    own = {"model.json", INDEX}
    for file in sorted(donor.iterdir()):
        if file.is_file() and file.suffix != ".safetensors" and file.name not in own and not file.name.startswith("."):
            shutil.copyfile(file, folder / file.name)


def copy_linked(source: Path, target: Path) -> None:
    """Copy a folder of task folders; weights are linked, so that they take no extra space."""
    shutil.copytree(
        source, target, copy_function=lambda a, b: link(Path(a), Path(b)) if a.endswith(".safetensors") else shutil.copyfile(a, b)
    )  # fmt: skip
