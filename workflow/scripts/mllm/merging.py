"""One recipe, one merge: mergekit does the arithmetic, everything around it is checked.

mergekit's in-memory API is used in a fresh process per merge: it gives the same bits as the
``mergekit-yaml`` command (a test holds it to that) without that command's start-up time.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml
from mergekit.merge_methods import merge_state_dicts

from mllm.checkpoints import check_labels, label_names, read_state
from mllm.cli import Failure
from mllm.recipes import METHODS

State = dict[str, torch.Tensor]


def merge(recipe: dict[str, Any], folders: dict[str, Path], donor: Path) -> State:
    """Merge checkpoints by a recipe, in float32.

    Args:
        recipe: a recipe's canonical form (method, members, parameters, base).
        folders: model folder of each member, and of ``base``.
        donor: the folder whose names, shapes and labels all others must have.

    Returns:
        The merged tensors by name, sorted by name.

    Raises:
        Failure: a checkpoint is not whole, or differs from the donor in names, shapes or labels;
            an input or the result is not finite.
    """
    states = load_alike(folders, donor)
    inputs = [*([recipe["base"]] if recipe["base"] else []), *recipe["members"]]
    base = recipe["base"] or (recipe["members"][0] if recipe["method"] == "slerp" else None)
    parameters = dict(recipe["parameters"])
    if METHODS[recipe["method"]].random:
        torch.manual_seed(parameters.pop("seed"))
    weights = parameters.get("weight")
    if isinstance(weights, dict) and recipe["base"]:
        parameters["weight"] = {recipe["base"]: 0.0, **weights}  # the base's own weight is never used
    with torch.no_grad():
        merged = merge_state_dicts(
            {name: states[name] for name in inputs},
            recipe["method"],
            base=base,
            parameters=parameters,
            dtype=torch.float32,
        )
    check_finite(merged, f"the merge ({recipe['method']} of {', '.join(recipe['members'])})")
    return merged


def load_alike(folders: dict[str, Path], donor: Path) -> dict[str, State]:
    """Read checkpoints and refuse any that does not have the donor's tensors, shapes and labels."""
    expected = read_state(donor)
    labels = label_names(donor)
    states = {}
    for name, folder in folders.items():
        check_labels(folder, labels)
        state = read_state(folder)
        for what, names in (("lacks", expected.keys() - state.keys()), ("has", state.keys() - expected.keys())):
            if names:
                raise Failure(f"{folder}: {what} {len(names)} tensors that {donor} {'has' if what == 'lacks' else 'lacks'}, "
                              f"the first: {min(names)}; only checkpoints of one architecture can be merged")  # fmt: skip
        for tensor, value in state.items():
            if value.shape != expected[tensor].shape:
                raise Failure(
                    f"{folder}: {tensor} has shape {tuple(value.shape)}, in {donor} it is {tuple(expected[tensor].shape)}"
                )
        check_finite(state, str(folder))
        states[name] = state
    return states


def check_finite(state: State, where: str) -> None:
    for name, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise Failure(f"{where}: {name} holds NaN or infinite values")


def mergekit_yaml(recipe: dict[str, Any], folders: dict[str, Path]) -> str:
    """The recipe as a file for the ``mergekit-yaml`` command, which makes the same tensors, bit for bit."""
    parameters = {k: v for k, v in recipe["parameters"].items() if k != "seed"}
    weights = parameters.pop("weight", None)
    models = []
    for member in recipe["members"]:
        entry: dict[str, Any] = {"model": str(folders[member])}
        if weights is not None:
            entry["parameters"] = {"weight": weights[member] if isinstance(weights, dict) else weights}
        models.append(entry)
    document: dict[str, Any] = {"merge_method": recipe["method"], "models": models, "dtype": "float32"}
    if recipe["base"]:
        document["base_model"] = str(folders[recipe["base"]])
    elif recipe["method"] == "slerp":
        document["base_model"] = str(folders[recipe["members"][0]])
    if parameters:
        document["parameters"] = parameters
    command = "mergekit-yaml mergekit.yaml OUTPUT" + (
        f" --random-seed {recipe['parameters']['seed']}" if "seed" in recipe["parameters"] else ""
    )
    return f"# {command}   (from the project's root, with this file's path)\n" + yaml.safe_dump(
        document, sort_keys=False
    )


def write(state: State, donor: Path, folder: Path, card: dict[str, Any]) -> None:
    """Write a merged model folder: configuration and tokenizer come from the donor, always."""
    from safetensors.torch import save_file

    own = {"model.json", "model.safetensors.index.json"}
    folder.mkdir(parents=True)
    for file in sorted(donor.iterdir()):
        if file.is_file() and file.suffix != ".safetensors" and file.name not in own and not file.name.startswith("."):
            shutil.copyfile(file, folder / file.name)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.json").write_text(json.dumps(card, indent=2, sort_keys=True) + "\n")
