"""Merge one model for several tasks: one backbone, merged from all members, and a head for each task.

A task with one member takes that member's head. A task with several takes their heads, merged by the same recipe. Heads
of different tasks are never mixed. A model that is asked with prompts has no heads: all its tensors are merged.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mllm.core.errors import Failure
from mllm.core.files import once
from mllm.core.messages import log
from mllm.merging.merge import Merge, announce
from mllm.merging.tensor_files import Weights, write
from mllm.models import checkpoint_files, task_folders

Layout = dict[str, tuple[torch.dtype, tuple[int, ...]]]


@dataclass(frozen=True)
class Part:
    """One task's part of a model over several tasks."""

    base: str
    """Name of the task's prepared checkpoint."""
    members: tuple[str, ...]
    """The task's experts among the merge's members."""


class TaskMerge:
    """A recipe whose members belong to several tasks, with its opened parents.

    Args:
        recipe: as in :class:`mllm.merging.merge.Merge`; its base is that of the first task.
        folders: model folder of each member and of each task's base.
        parts: task -> its base and members.
        device: as in Merge.
        kept: folder where merges of the same bases share the bases' digests.

    Raises:
        Failure: the bases differ outside their heads; a member's labels are not its task's; as in Merge.
    """

    def __init__(
        self, recipe: dict[str, Any], folders: dict[str, Path], parts: dict[str, Part], device: str, kept: Path | None
    ) -> None:
        self.recipe, self.folders, self.device = recipe, folders, device
        self.parts = dict(sorted(parts.items()))
        self.donors = {task: folders[part.base] for task, part in self.parts.items()}
        first = next(iter(self.donors.values()))
        self.heads = task_folders.heads_of(first)
        for task, part in self.parts.items():
            for member in part.members:
                checkpoint_files.check_labels(folders[member], checkpoint_files.label_names(self.donors[task]))
        check_backbones(self.donors, self.heads, kept)
        self.backbone = Merge(recipe, folders, first, device, lambda name: name not in self.heads)

    @property
    def body(self) -> str:
        """Return the prefix of a classifier's tensor names outside its head; empty where there is no head."""
        begins = {name.split(".")[0] for name in self.backbone.names} if self.heads else set()
        return f"{begins.pop()}." if len(begins) == 1 else ""

    def write(self, output: Path) -> str:
        """Write ``output/<task>/`` for each task, complete except for its card.

        Returns:
            SHA-256 of all weights, hexadecimal.
        """
        digests: list[Any] = []
        first: Path | None = None
        for task, donor in self.donors.items():
            (output / task).mkdir(parents=True)
            files = [output / task / name for name in task_folders.shard_names(2 if self.heads else 1)]
            if first is None:
                digests.append(write(files[0], self.backbone.layout(), self.backbone.tensors()))
            else:
                task_folders.link(first, files[0])
            first = files[0]
            if self.heads:
                digests.append([task, write(files[1], *self._head(task))])
            task_folders.complete(output / task, donor)
            announce(output / task, self.backbone.out_dtype)
        dtype = str(self.backbone.out_dtype).removeprefix("torch.")
        log.info("%s of %s: %s shared tensors and %s for each task, in %s on %s", self.backbone.name,
                 ", ".join(self.backbone.members), len(self.backbone.names), len(self.heads), dtype,
                 self.backbone.device)  # fmt: skip
        return digests[0] if not self.heads else hashlib.sha256(json.dumps(digests).encode()).hexdigest()

    def _head(self, task: str) -> tuple[Layout, Iterator[tuple[str, torch.Tensor]]]:
        """Return a task's head: its member's, or merged from its members'."""
        part, dtype = self.parts[task], self.backbone.out_dtype
        if len(part.members) > 1:
            base = part.base if self.recipe["base"] else None
            own = {**self.recipe, "members": list(part.members), "base": base}
            merge = Merge(own, self.folders, self.donors[task], self.device, lambda name: name in self.heads)
            return merge.layout(), merge.tensors()
        weights = Weights(self.folders[part.members[0]])
        floats = {n: weights.dtype(n).is_floating_point for n in sorted(self.heads)}
        layout = {n: (dtype if floats[n] else weights.dtype(n), weights.shape(n)) for n in floats}
        return layout, ((n, weights.read(n).to(layout[n][0])) for n in layout)


def check_backbones(donors: dict[str, Path], heads: set[str], kept: Path | None = None) -> None:
    """Refuse bases of several tasks whose weights differ outside their heads.

    Raises:
        Failure: two of them differ.
    """
    found = {task: _shared_digest(folder, lambda name: name not in heads, kept) for task, folder in donors.items()}
    first, *others = found
    for task in others:
        if found[task] != found[first]:
            raise Failure(
                f"{donors[task]}: weights differ from {donors[first]} outside the head (found SHA-256"
                f" {found[task][:12]}…, expected {found[first][:12]}…). Merges over several tasks need experts of one"
                " model. Fix: delete both and rerun, so that both are made from the same checkpoint"
            )


def _shared_digest(folder: Path, part: Callable[[str], bool], kept: Path | None) -> str:
    """Return the SHA-256 of a checkpoint's backbone tensors. Only its first merge reads them."""

    def digest() -> str:
        weights, total = Weights(folder), hashlib.sha256()
        for name in filter(part, weights):
            total.update(f"{name} {weights.dtype(name)} {weights.shape(name)}".encode())
            total.update(weights.read(name).contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return total.hexdigest()

    facts = [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in checkpoint_files.weight_files(folder)]
    return str(once(kept, "backbone", [str(folder.resolve()), facts], digest))
