"""Make a mixture of experts: a router before every member's feed-forward blocks; all else is the members' average.

mergekit-moe takes everything except the feed-forward blocks from a "base model". With the experts' base, classifiers
would get an untrained head. Its base model here is therefore the members' average, as in Branch-Train-MiX (Sukhbaatar
et al. 2024, arXiv 2403.07816). The classification head is put back at the end.
"""

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mllm.core.errors import Failure
from mllm.core.files import read_json
from mllm.core.messages import log, progress
from mllm.experiment.mixture_architectures import HEADS, MIXTURES, Mixture
from mllm.merging import router
from mllm.merging.mergekit_private import mixtures
from mllm.merging.quiet_libraries import quiet
from mllm.models.checkpoint_files import WEIGHTS

if TYPE_CHECKING:
    import torch

HEAD = "score."
SHARED_SCALE = 0.1  # mergekit's documentation recommends it for Qwen2's extra expert, which sees every token


def build(recipe: dict[str, Any], folders: dict[str, Path], prompts: dict[str, list[str]], output: Path) -> str:
    """Make the mixture of experts of a recipe, in float32, and write its model folder.

    Args:
        recipe: members, base, out_dtype, and in parameters gate_mode, experts_per_token and seed.
        folders: model folder of each member and of the base, whose configuration and tokenizer the mixture gets.
        prompts: member -> the texts that make its part of the router; unused where the router is random.
        output: the folder to write, which must not exist yet; temporary files are next to it meanwhile.

    Returns:
        SHA-256 of the weights, hexadecimal.

    Raises:
        Failure: the recipe, architecture, texts, checkpoints or their values allow no mixture.
    """
    from mllm.models.tokenizers import load_tokenizer

    members, parameters, base = recipe["members"], recipe["parameters"], folders[recipe["base"]]
    mixture, architecture = _check(recipe, folders, prompts)
    texts = {name: [t for t in prompts.get(name, []) if t.strip()] for name in members}
    if mixture.shared_expert:
        texts["the shared expert"] = [t for name in members for t in texts[name]]
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".moe-", dir=output.parent) as scratch:
        average, made = Path(scratch) / "average", Path(scratch) / "mixture"
        with quiet() as said:
            head = _write_average({m: folders[m] for m in members}, base, average)
            tokenizer = load_tokenizer(base)
            gates = router.weights(parameters["gate_mode"], parameters["seed"], average, tokenizer, texts)
            said.clear()
            mixtures.warn_degenerate_gates(gates[:, : len(members)])  # the shared expert is like all of them
            warning = " ".join(said)
            settings = {k: parameters[k] for k in ("gate_mode", "experts_per_token")}
            settings |= {"dtype": recipe["out_dtype"], "residual_scale": SHARED_SCALE}
            mixtures.write_mixture(mixture.writer, average, [folders[m] for m in members], gates, settings, made)
        if warning:
            log.warning("mixture of %s: mergekit-moe warns: %s", ", ".join(members), warning)
        digest = _write(made, head, architecture, recipe, base, Path(scratch) / "model")
        (Path(scratch) / "model").rename(output)
    return digest


def mixture_of(folder: Path) -> tuple[Mixture, str]:
    """Return the kind of mixture for experts like this one and its class (MixtralForCausalLM, …), by config.json only.

    Raises:
        Failure: mergekit-moe cannot mix experts of this architecture.
    """
    possible = {experts: (m, mixture) for m in MIXTURES for experts, mixture in m.architectures().items()}
    config = read_json(folder / "config.json")
    found = " and ".join(config.get("architectures") or ["an unnamed architecture"])
    if found not in possible:
        raise Failure(
            f"{folder / 'config.json'}: no mixture of experts can be made (found {found}, expected one of "
            f"{', '.join(possible)}). Fix: blend the experts' predictions instead"
        )
    if config.get("use_sliding_window"):
        raise Failure(
            f"{folder / 'config.json'}: use_sliding_window is on; in mergekit-moe's mixtures all layers would see the "
            f"full text. Fix: blend the experts' predictions instead"
        )
    return possible[found]


def mergekit_yaml(recipe: dict[str, Any], folders: dict[str, Path], prompts: dict[str, list[str]]) -> str:
    """Return the recipe as a file for the ``mergekit-moe`` command; its base model must be the members' average."""
    import yaml

    p = recipe["parameters"]
    experts = [
        {"source_model": str(folders[m]), "positive_prompts": prompts.get(m, ["unused"])} for m in recipe["members"]
    ]
    document = {"base_model": "AVERAGE", "gate_mode": p["gate_mode"], "experts_per_token": p["experts_per_token"],
                "dtype": p["out_dtype"], "experts": experts}  # fmt: skip
    note = (
        f"# mergekit-moe mergekit.yaml OUTPUT --random-seed {p['seed']}   (from the project's root, with this file's path)\n"
        "# AVERAGE: a folder with the members' linear average, as a causal model. For classifiers the command leaves out\n"
        "# the classification head and makes the router's weights in bfloat16; this project does neither.\n"
    )
    return note + yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def _check(recipe: dict[str, Any], folders: dict[str, Path], prompts: dict[str, list[str]]) -> tuple[Mixture, str]:
    """Refuse input that gives no working mixture; return the same as :func:`mixture_of`."""
    members, mode, many = recipe["members"], *(recipe["parameters"][k] for k in ("gate_mode", "experts_per_token"))
    what = f"mixture of {', '.join(members)}"
    if len(members) < 2:
        raise Failure(f"{what}: found {len(members)} members, expected at least 2")
    if not 1 <= many <= len(members):
        raise Failure(f"{what}: experts_per_token is {many}, expected 1 to {len(members)}, the number of members")
    if mode not in router.GATE_MODES:
        raise Failure(f"{what}: gate_mode is {mode!r}, expected one of {', '.join(router.GATE_MODES)}")
    if mode not in router.RANDOM:
        for name in members:
            if not any(t.strip() for t in prompts.get(name, [])):
                raise Failure(f"{what}: no text for {name}; gate_mode {mode} needs one to make its part of the router")
        # mergekit-moe itself refuses the next two cases.
        if all(prompts[name] == prompts[members[0]] for name in members):
            raise Failure(f"{what}: all members have the same texts; the router could not distinguish them")
        if len({folders[name].resolve() for name in members}) == 1:
            raise Failure(f"{what}: all members are the same folder, {folders[members[0]]}")
    return mixture_of(folders[recipe["base"]])


def _write_average(members: dict[str, Path], base: Path, folder: Path) -> "dict[str, torch.Tensor]":
    """Write the members' average as mergekit-moe's base model; return the classification head, which it leaves out."""
    import torch

    from mllm.merging.compatibility import open_alike
    from mllm.merging.mergekit_private.methods import merge_state_dicts
    from mllm.merging.tensor_files import write

    opened, names = open_alike(members, base)
    config = read_json(base / "config.json")
    config["architectures"] = [config["architectures"][0].replace(*HEADS)]
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    known = mixtures.known_tensors(folder)
    dropped = [n for n in names if n not in known and not n.startswith(HEAD)]
    if dropped:
        raise Failure(
            f"{base}: mergekit-moe would leave out {len(dropped)} tensors, the first: {dropped[0]}. "
            f"Fix: blend the experts' predictions instead"
        )

    def average(name: str) -> torch.Tensor:
        tensors = {member: {name: weights.read(name)} for member, weights in opened.items()}
        return merge_state_dicts(tensors, "linear", parameters={"weight": 1.0}, dtype=torch.float32)[name]

    shapes = {n: next(iter(opened.values())).shape(n) for n in names if n in known}
    layout = {n: (torch.float32, shape) for n, shape in shapes.items()}
    write(folder / WEIGHTS, layout, ((n, average(n)) for n in progress(shapes, "average")))
    return {n: average(n) for n in names if n not in known}


def _write(
    made: Path, head: "dict[str, torch.Tensor]", architecture: str, recipe: dict[str, Any], base: Path, folder: Path
) -> str:
    """Write the model folder; the mixture keeps the base's configuration and tokenizer."""
    import torch

    from mllm.merging.merge import copy_but_weights
    from mllm.merging.tensor_files import Weights, check_finite, write

    weights, out_dtype = Weights(made), getattr(torch, recipe["out_dtype"])
    layout = {n: (out_dtype, weights.shape(n)) for n in weights} | {n: (out_dtype, h.shape) for n, h in head.items()}
    # mergekit-moe turns off sliding windows, for one.
    of_the_mixture = ("architectures", "model_type", "dtype", "torch_dtype", "transformers_version")
    kept = {k: v for k, v in read_json(base / "config.json").items() if k not in of_the_mixture}
    config = {**read_json(made / "config.json"), **kept, "architectures": [architecture]}
    folder.mkdir()
    copy_but_weights(base, folder)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n")

    def tensor(name: str) -> torch.Tensor:
        try:
            value = weights.read(name) if name in weights else head[name].to(out_dtype)
            check_finite(value, name)
        except Failure:  # the members' are finite, or their average could not have been made
            raise Failure(
                f"mixture of {', '.join(recipe['members'])}: {name} is not finite in {recipe['out_dtype']}"
            ) from None
        return value

    return write(folder / WEIGHTS, dict(sorted(layout.items())), ((n, tensor(n)) for n in sorted(layout)))
