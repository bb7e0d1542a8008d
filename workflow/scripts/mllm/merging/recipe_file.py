"""Write a recipe as a file for the mergekit-yaml command."""

from pathlib import Path
from typing import Any

import torch
import yaml

from mllm.merging import methods
from mllm.merging.depth import _of
from mllm.merging.merge import Merge
from mllm.merging.mergekit_private.methods import ParameterScope


def mergekit_yaml(merge: Merge, folders: dict[str, Path], body: str = "") -> str:
    """Return the recipe as a file for the ``mergekit-yaml`` command, which makes the same tensors, bit for bit.

    The command does not know this project's own methods; for them, the file says so.

    Args:
        merge: the merge, opened.
        folders: of its parents.
        body: where heads are left out, the prefix of tensors' names in models with a head. The command merges models
            without heads, whose names lack it.
    """
    scopes = {spec.name: spec.scope for spec in merge.method.spec.parameters}
    own = {k: v for k, v in merge.parameters.items() if scopes[k] != ParameterScope.SHARED}
    shared = {
        k: merge.depth.setting(v, body) for k, v in merge.parameters.items() if scopes[k] == ParameterScope.SHARED
    }
    models = []
    for member in merge.members:
        entry: dict[str, Any] = {"model": str(folders[member])}
        if own and not (member == merge.base and all(scopes[k] == ParameterScope.NON_BASE for k in own)):
            entry["parameters"] = {k: merge.depth.setting(_of(v, member), body) for k, v in own.items()}
        models.append(entry)
    document: dict[str, Any] = {"merge_method": merge.name, "models": models, "dtype": "float32"}
    if merge.out_dtype != torch.float32:
        document["out_dtype"] = str(merge.out_dtype).removeprefix("torch.")
    if merge.base:
        document["base_model"] = str(folders[merge.base])
    if shared:
        document["parameters"] = shared
    # Long sums depend on the number of threads; merges use one.
    command = "OMP_NUM_THREADS=1 mergekit-yaml mergekit.yaml OUTPUT" + (
        f" --random-seed {merge.seed}" if merge.seed is not None else ""
    )
    note = f"{command}   (from the project's root, with this file's path)"
    if merge.device == "cuda":
        note = f"{command} --cuda   (from the project's root; another device's sums differ in their last digits)"
    if not methods.in_mergekit(merge.name):
        note = f"not for the mergekit-yaml command, which has no {merge.name}; see docs/merging.md"
    if body:
        note += "\n# of the models without their heads: for each, AutoModel.from_pretrained(FOLDER).save_pretrained(HEADLESS)"
    return f"# {note}\n" + yaml.safe_dump(document, sort_keys=False)
