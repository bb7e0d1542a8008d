"""Make one merge by one recipe: mergekit does the arithmetic, this module checks inputs and results.

It calls mergekit's methods tensor by tensor, in a fresh process per merge, as the ``mergekit-yaml`` command does. A
test checks that the bits are the same. It saves the command's start-up time and needs less memory.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mllm.core.errors import Failure
from mllm.core.files import read_json
from mllm.core.messages import log, progress
from mllm.merging import floor, methods
from mllm.merging.compatibility import open_alike
from mllm.merging.depth import Depth, _of, _varies
from mllm.merging.mergekit_private.methods import ParameterScope, TensorGroup
from mllm.merging.tensor_files import check_finite, write
from mllm.models.checkpoint_files import WEIGHTS


class Merge:
    """A recipe with its opened parents.

    Args:
        recipe: a recipe's canonical form (method, members, parameters, base).
        folders: model folder of each member, and of the base where it takes part.
        donor: the folder whose names, shapes, labels, tokenizer and configuration all others must have.
        device: where to compute; random methods stay on the CPU, whose generator makes the same masks everywhere.
        part: tells by a tensor's name whether to merge it. Without it, all are merged, and labels must be the donor's.

    Raises:
        Failure: a parent is incomplete, or cannot be merged with the donor.
    """

    def __init__(
        self,
        recipe: dict[str, Any],
        folders: dict[str, Path],
        donor: Path,
        device: str = "cpu",
        part: Callable[[str], bool] | None = None,
    ):
        self.name, self.members, self.base = recipe["method"], list(recipe["members"]), recipe["base"]
        self.parameters = dict(recipe["parameters"])
        self.seed = self.parameters.pop("seed", None)
        self.out_dtype: torch.dtype = getattr(torch, self.parameters.pop("out_dtype", "float32"))
        self.parameters.pop("use_base", None)
        self.device = device if self.seed is None else "cpu"
        self.inputs = [*([self.base] if self.base and self.base not in self.members else []), *self.members]
        self.method = methods.method(self.name)
        self.parents, self.names = open_alike({name: folders[name] for name in self.inputs}, donor, part)
        self.first = self.parents[self.inputs[0]]
        self.depth = Depth(list(self.first), read_json(donor / "config.json"))
        if any(map(_varies, self.parameters.values())) and not self.depth.layers:
            raise Failure(
                f"{donor}: a parameter cannot change with depth (found no numbered layers among its tensors). Fix: give"
                " one value for all layers"
            )

    def layout(self) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """Return the type and shape of each merged tensor."""
        return {
            n: (self.out_dtype if self._floats(n) else self.first.dtype(n), self.first.shape(n)) for n in self.names
        }

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the merged tensors in sorted order; random methods draw their numbers in this order.

        Raises:
            Failure: a parent's tensor or the result is not finite, or the method cannot merge a tensor correctly.
        """
        if "threshold" in {p.name for p in self.method.spec.parameters}:
            self._look_at_whole_task_vectors()
        if self.seed is not None:
            torch.manual_seed(self.seed)
        for name in progress(self.names, self.name):
            group = self._group(name)
            if not self._floats(name):
                yield name, self._agreed(group, name)
                continue
            self._refuse(group, name)
            values = self._values(name)
            try:
                (merged,) = self.method((group,), parameters=values, dtype=torch.float32, out_dtype=self.out_dtype)
            except ValueError as error:
                raise Failure(f"{name}: {self.name} cannot merge it: {error}") from None
            check_finite(merged, f"the merge ({self.name} of {', '.join(self.members)}): {name}")
            yield name, merged.cpu()

    def _group(self, name: str) -> TensorGroup:
        tensors = [self.parents[i].read(name).to(self.device) for i in self.inputs]
        base_index = self.inputs.index(self.base) if self.base else None
        return TensorGroup.from_tensors(tensors, ids=self.inputs, base_index=base_index, name=name)

    def _floats(self, name: str) -> bool:
        return all(p.dtype(name).is_floating_point for p in self.parents.values())

    def _agreed(self, group: TensorGroup, name: str) -> torch.Tensor:
        """Return a tensor of counts or indices, which must be the same in all parents."""
        first = group.tensors[0]
        if any(t.dtype != first.dtype or not torch.equal(t, first) for t in group.tensors[1:]):
            raise Failure(
                f"{name}: integers cannot be merged (found different values in {', '.join(self.inputs)}, expected equal"
                " ones)"
            )
        return first.cpu()

    def _values(self, name: str) -> dict[str, Any]:
        """Return mergekit's parameters for one tensor at its depth; a map where inputs have their own values."""
        values = {}
        for spec in self.method.spec.parameters:
            if spec.name in self.parameters:
                value = self.parameters[spec.name]
                shared = spec.scope == ParameterScope.SHARED
                values[spec.name] = (
                    self.depth.at(value, name)
                    if shared
                    else {m: self.depth.at(_of(value, m), name) for m in self.members}
                )
        return values

    def _refuse(self, group: TensorGroup, name: str) -> None:
        """Refuse a tensor that mergekit would merge wrongly or fail on."""
        shape = self.first.shape(name)
        if self.name.startswith("della") and (shape[1] if len(shape) > 1 else shape[0] if shape else 1) == 1:
            raise Failure(
                f"{name}: {self.name} ranks the entries of a row, and needs more than one (found shape {shape})"
            )
        if self.name == "model_stock" and floor.below_floor(group, self.parameters["filter_wise"]):
            raise Failure(
                f"{name}: the product of two members' task vectors' norms is below {floor.FLOOR:g}; mergekit would use "
                f"this floor instead and so shrink the update. Fix: set convention: paper, which has no such floor"
            )

    def _look_at_whole_task_vectors(self) -> None:
        """Compute each member's threshold and the sign that most entries of the model elect, for the paper's TIES."""

        by_paper = import_module(*methods.modules(self.name))

        def deltas(member: str) -> Iterator[np.ndarray]:
            for name in filter(self._floats, self.names):
                yield self._delta(member, name).numpy()

        density = {m: float(_of(self.parameters["density"], m)) for m in self.members}
        self.parameters["threshold"] = by_paper.thresholds(deltas, self.members, density)
        balance = 0.0
        for name in filter(self._floats, self.names):
            weight = self._values(name)["weight"]
            kept = [
                weight[m] * by_paper.above(self._delta(m, name), {**self.parameters, "threshold": threshold})
                for m, threshold in self.parameters["threshold"].items()
            ]
            balance += float(torch.stack(kept).sum(dim=0).sign().double().sum())
        self.parameters["majority"] = -1.0 if balance < 0 else 1.0

    def _delta(self, member: str, name: str) -> torch.Tensor:
        return self.parents[member].read(name).float() - self.parents[self.base].read(name).float()


def write_model(merge: Merge, donor: Path, folder: Path) -> str:
    """Write a merged model folder. Configuration and tokenizer are always the donor's.

    Returns:
        SHA-256 of the weights, hexadecimal.
    """
    folder.mkdir(parents=True)
    copy_but_weights(donor, folder)
    announce(folder, merge.out_dtype)
    digest = write(folder / WEIGHTS, merge.layout(), merge.tensors())
    log.info("%s of %s: %s tensors, in %s on %s", merge.name, ", ".join(merge.members), len(merge.names),
             str(merge.out_dtype).removeprefix("torch."), merge.device)  # fmt: skip
    return digest


def announce(folder: Path, dtype: torch.dtype) -> None:
    """Write the type of the weights into a model folder's configuration."""
    config = read_json(folder / "config.json")
    config["dtype"] = str(dtype).removeprefix("torch.")
    config.pop("torch_dtype", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def copy_but_weights(donor: Path, folder: Path) -> None:
    """Copy a model folder's files, except the weights and the card that says how they were made."""
    own = {"model.json", "model.safetensors.index.json"}
    for file in sorted(donor.iterdir()):
        if file.is_file() and file.suffix != ".safetensors" and file.name not in own and not file.name.startswith("."):
            shutil.copyfile(file, folder / file.name)
