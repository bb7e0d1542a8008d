"""One recipe, one merge: mergekit does the arithmetic, everything around it is checked.

mergekit's methods are called tensor by tensor, in a fresh process per merge, as the ``mergekit-yaml`` command calls
them: the same bits (a test holds it to that) without the command's start-up time and with less memory.
"""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from mergekit.merge_methods.base import ParameterScope, TensorGroup

from mllm import conventions
from mllm.checkpoints import WEIGHTS
from mllm.cli import Failure, log, progress, read_json
from mllm.parameters import is_layered
from mllm.parents import open_alike
from mllm.weights import check_finite, write

DEPTH_KEYS = ("num_hidden_layers", "n_layer", "num_layers", "num_decoder_layers", "n_layers")


class Merge:
    """A recipe with its opened parents.

    Args:
        recipe: a recipe's canonical form (method, members, parameters, base).
        folders: model folder of each member, and of the base where it takes part.
        donor: the folder whose names, shapes, labels, tokenizer and configuration all others must have.
        device: where to compute; random methods stay on the CPU, whose generator makes the same masks everywhere.

    Raises:
        Failure: a parent is not whole, or cannot be merged with the donor.
    """

    def __init__(self, recipe: dict[str, Any], folders: dict[str, Path], donor: Path, device: str = "cpu"):
        self.name, self.members, self.base = recipe["method"], list(recipe["members"]), recipe["base"]
        self.parameters = dict(recipe["parameters"])
        self.seed = self.parameters.pop("seed", None)
        self.out_dtype: torch.dtype = getattr(torch, self.parameters.pop("out_dtype", "float32"))
        self.parameters.pop("use_base", None)
        self.device = device if self.seed is None else "cpu"
        self.inputs = [*([self.base] if self.base and self.base not in self.members else []), *self.members]
        self.method = conventions.method(self.name)
        self.parents, self.names = open_alike({name: folders[name] for name in self.inputs}, donor)
        self.first = self.parents[self.inputs[0]]
        self.depth = Depth(self.names, read_json(donor / "config.json"))
        if any(map(_varies, self.parameters.values())) and not self.depth.layers:
            raise Failure(f"{donor}: no numbered layers among its tensors; a parameter cannot change with depth")

    def layout(self) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """Type and shape of each merged tensor."""
        return {
            n: (self.out_dtype if self._floats(n) else self.first.dtype(n), self.first.shape(n)) for n in self.names
        }

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The merged tensors, in sorted order, which the random methods' one stream of numbers follows.

        Raises:
            Failure: a parent's tensor or the outcome is not finite; a tensor that the method cannot merge rightly.
        """
        if self.name == "ties_paper":
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
        """A tensor of counts or indices, the same in all parents."""
        first = group.tensors[0]
        if any(t.dtype != first.dtype or not torch.equal(t, first) for t in group.tensors[1:]):
            raise Failure(
                f"{name} holds no fractions, and differs between {', '.join(self.inputs)}; it cannot be merged"
            )
        return first.cpu()

    def _values(self, name: str) -> dict[str, Any]:
        """mergekit's parameters for one tensor: those of inputs as a map, those that vary with depth as they are here."""
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
        """What mergekit would merge wrongly, or break off at in words of its own."""
        shape = self.first.shape(name)
        if self.name.startswith("della") and (shape[1] if len(shape) > 1 else shape[0] if shape else 1) == 1:
            raise Failure(
                f"{name}: has shape {shape}; {self.name} ranks the entries of a row, and cannot where there is one"
            )
        if self.name == "model_stock" and conventions.below_floor(group, self.parameters["filter_wise"]):
            raise Failure(
                f"{name}: the product of two members' task vectors' norms is below {conventions.FLOOR:g}, which mergekit "
                f"takes in its place and so shrinks the update; set convention: paper, which has no such floor"
            )

    def _look_at_whole_task_vectors(self) -> None:
        """The paper's TIES: each member's threshold, and the sign that most of the model's entries elect."""

        def deltas(member: str) -> Iterator[np.ndarray]:
            for name in filter(self._floats, self.names):
                yield self._delta(member, name).numpy()

        density = {m: float(_of(self.parameters["density"], m)) for m in self.members}
        self.parameters["threshold"] = conventions.thresholds(deltas, self.members, density)
        balance = 0.0
        for name in filter(self._floats, self.names):
            weight = self._values(name)["weight"]
            kept = [
                weight[m] * conventions.above(self._delta(m, name), {**self.parameters, "threshold": threshold})
                for m, threshold in self.parameters["threshold"].items()
            ]
            balance += float(torch.stack(kept).sum(dim=0).sign().double().sum())
        self.parameters["majority"] = -1.0 if balance < 0 else 1.0

    def _delta(self, member: str, name: str) -> torch.Tensor:
        return self.parents[member].read(name).float() - self.parents[self.base].read(name).float()


class Depth:
    """Where a tensor stands in its model: in which layer of how many, or in none.

    Args:
        names: of all tensors.
        config: of the model, whose numbers of layers tell its layers from other numbered parts.
    """

    def __init__(self, names: list[str], config: dict[str, Any]):
        numbered = [m for m in (re.match(r"(.+?\.)(\d+)\.", name) for name in names) if m]
        counts = {prefix: 1 + max(int(m[2]) for m in numbered if m[1] == prefix) for prefix in {m[1] for m in numbered}}
        known = {config[key] for key in DEPTH_KEYS if key in config}
        self.layers = {prefix: count for prefix, count in sorted(counts.items()) if count in known}

    def at(self, value: Any, name: str) -> Any:
        """A parameter's value for one tensor, interpolated between the values given, as mergekit's gradients are."""
        if not is_layered(value):
            return value
        match = re.match(r"(.+?\.)(\d+)\.", name)
        if not match or match[1] not in self.layers:
            return value["rest"]
        count, given = self.layers[match[1]], value["layers"]
        place = (int(match[2]) / (count - 1) if count > 1 else 1) * (len(given) - 1)
        left = int(place)
        part = place - left
        return (1 - part) * given[left] + part * given[min(left + 1, len(given) - 1)]

    def setting(self, value: Any) -> Any:
        """The same in the words of mergekit's configuration."""
        if not is_layered(value):
            return value
        return [{"filter": prefix, "value": value["layers"]} for prefix in self.layers] + [{"value": value["rest"]}]


def _of(value: Any, member: str) -> Any:
    return value[member] if isinstance(value, dict) and not is_layered(value) else value


def _varies(value: Any) -> bool:
    return is_layered(value) or (isinstance(value, dict) and any(map(is_layered, value.values())))


def mergekit_yaml(merge: Merge, folders: dict[str, Path]) -> str:
    """The recipe as a file for the ``mergekit-yaml`` command, which makes the same tensors, bit for bit.

    Of a method of ours, which the command does not know, the file says so.
    """
    scopes = {spec.name: spec.scope for spec in merge.method.spec.parameters}
    own = {k: v for k, v in merge.parameters.items() if scopes[k] != ParameterScope.SHARED}
    shared = {k: merge.depth.setting(v) for k, v in merge.parameters.items() if scopes[k] == ParameterScope.SHARED}
    models = []
    for member in merge.members:
        entry: dict[str, Any] = {"model": str(folders[member])}
        if own and not (member == merge.base and all(scopes[k] == ParameterScope.NON_BASE for k in own)):
            entry["parameters"] = {k: merge.depth.setting(_of(v, member)) for k, v in own.items()}
        models.append(entry)
    document: dict[str, Any] = {"merge_method": merge.name, "models": models, "dtype": "float32"}
    if merge.out_dtype != torch.float32:
        document["out_dtype"] = str(merge.out_dtype).removeprefix("torch.")
    if merge.base:
        document["base_model"] = str(folders[merge.base])
    if shared:
        document["parameters"] = shared
    # Long sums depend on the number of threads; merges are made with one.
    command = "OMP_NUM_THREADS=1 mergekit-yaml mergekit.yaml OUTPUT" + (
        f" --random-seed {merge.seed}" if merge.seed is not None else ""
    )
    note = f"{command}   (from the project's root, with this file's path)"
    if merge.name in conventions.OURS:
        note = f"not for the mergekit-yaml command, which has no {merge.name}; see docs/merging.md"
    return f"# {note}\n" + yaml.safe_dump(document, sort_keys=False)


def write_model(merge: Merge, donor: Path, folder: Path) -> str:
    """Write a merged model folder: configuration and tokenizer come from the donor, always.

    Returns:
        SHA-256 of the weights, hexadecimal.
    """
    folder.mkdir(parents=True)
    copy_but_weights(donor, folder)
    config = read_json(folder / "config.json")
    config["dtype"] = str(merge.out_dtype).removeprefix("torch.")
    config.pop("torch_dtype", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    digest = write(folder / WEIGHTS, merge.layout(), merge.tensors())
    log.info("%s of %s: %s tensors, in %s on %s", merge.name, ", ".join(merge.members), len(merge.names),
             config["dtype"], merge.device)  # fmt: skip
    return digest


def copy_but_weights(donor: Path, folder: Path) -> None:
    """Everything of a model folder that is not weights, nor the card of what made them."""
    own = {"model.json", "model.safetensors.index.json"}
    for file in sorted(donor.iterdir()):
        if file.is_file() and file.suffix != ".safetensors" and file.name not in own and not file.name.startswith("."):
            shutil.copyfile(file, folder / file.name)
