"""A mixture of experts: every member's feed-forward blocks behind a router, the members' average for all else.

mergekit-moe takes everything but the feed-forward blocks from a "base model"; given the experts' base, classifiers
would get a head that nobody trained. Its base model is therefore the members' average, as in
Branch-Train-MiX (Sukhbaatar et al. 2024, arXiv 2403.07816); the classification head is put back at the end.
"""

import contextlib
import io
import json
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mllm.core.errors import Failure
from mllm.core.files import read_json
from mllm.core.messages import log, progress
from mllm.models.checkpoint_files import WEIGHTS

if TYPE_CHECKING:
    import torch
    from mergekit.common import ModelReference

# Families of experts, and what their mixtures are (not DeepSeek's, which needs code from the Hub).
FAMILIES = {"Llama": "Mixtral", "Mistral": "Mixtral", "Qwen2": "Qwen2Moe", "Qwen3": "Qwen3Moe"}
HEADS = ("ForSequenceClassification", "ForCausalLM")
RANDOM = ("random", "uniform_random")
GATE_MODES = ("hidden", "hidden_avg", "hidden_last", "cheap_embed", *RANDOM)
EMBEDDING = "model.embed_tokens.weight"
HEAD = "score."
SHARED_SCALE = 0.1  # mergekit's documentation recommends it for Qwen2's extra expert, which sees every token


def build(recipe: dict[str, Any], folders: dict[str, Path], prompts: dict[str, list[str]], output: Path) -> str:
    """Make the mixture of experts that a recipe says, in float32, and write its model folder.

    Args:
        recipe: members, base, out_dtype, and in parameters gate_mode, experts_per_token and seed.
        folders: model folder of each member and of the base, whose configuration and tokenizer the mixture gets.
        prompts: texts of each member that its part of the router is made of; not needed where that is drawn.
        output: the folder to write, which does not exist; temporary files are next to it meanwhile.

    Returns:
        SHA-256 of the weights, hexadecimal.

    Raises:
        Failure: no mixture can be made of the recipe, the architecture, the texts, the checkpoints or their values.
    """
    from mergekit.moe.router import warn_degenerate_gates
    from transformers import AutoTokenizer

    members, parameters, base = recipe["members"], recipe["parameters"], folders[recipe["base"]]
    mixture = _check(recipe, folders, prompts)
    texts = {name: [t for t in prompts.get(name, []) if t.strip()] for name in members}
    if mixture.startswith("Qwen2Moe"):
        texts["the shared expert"] = [t for name in members for t in texts[name]]
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".moe-", dir=output.parent) as scratch:
        average, made = Path(scratch) / "average", Path(scratch) / "mixture"
        with _quiet() as said:
            head = _write_average({m: folders[m] for m in members}, base, average)
            tokenizer = AutoTokenizer.from_pretrained(base)
            router = _router(parameters["gate_mode"], parameters["seed"], average, tokenizer, texts)
            said.clear()
            warn_degenerate_gates(router[:, : len(members)])  # without the shared expert, which is like all of them
            warning = " ".join(said)
            _mix(recipe, mixture, folders, average, router, made)
        if warning:
            log.warning("the mixture of %s: mergekit-moe warns: %s", ", ".join(members), warning)
        digest = _write(made, head, mixture, recipe, base, Path(scratch) / "model")
        (Path(scratch) / "model").rename(output)
    return digest


def mixture_of(folder: Path) -> str:
    """The architecture of a mixture of experts like this one (MixtralForCausalLM, …); reads config.json only.

    Raises:
        Failure: mergekit-moe cannot mix experts of this architecture.
    """
    possible = {family + head: mixture + head for head in HEADS for family, mixture in FAMILIES.items()}
    config = read_json(folder / "config.json")
    found = " and ".join(config.get("architectures") or ["an unnamed architecture"])
    if found not in possible:
        raise Failure(
            f"{folder / 'config.json'}: no mixture of experts can be made of {found}; possible are "
            f"{', '.join(possible)}; for others, blend their predictions instead"
        )
    if config.get("use_sliding_window"):
        raise Failure(
            f"{folder / 'config.json'}: use_sliding_window is on; in a mixture by mergekit-moe all layers would see "
            f"the whole text; blend the experts' predictions instead"
        )
    return possible[found]


def mergekit_yaml(recipe: dict[str, Any], folders: dict[str, Path], prompts: dict[str, list[str]]) -> str:
    """The recipe as a file for the ``mergekit-moe`` command, to be given the members' average as its base model."""
    import yaml

    p = recipe["parameters"]
    experts = [
        {"source_model": str(folders[m]), "positive_prompts": prompts.get(m, ["unused"])} for m in recipe["members"]
    ]
    document = {"base_model": "AVERAGE", "gate_mode": p["gate_mode"], "experts_per_token": p["experts_per_token"],
                "dtype": p["out_dtype"], "experts": experts}  # fmt: skip
    note = (
        f"# mergekit-moe mergekit.yaml OUTPUT --random-seed {p['seed']}   (from the project's root, with this file's path)\n"
        "# AVERAGE: a folder with the members' linear average, as a causal model. For classifiers the command does less than\n"
        "# this project: it leaves out the classification head, and makes the router's weights in bfloat16.\n"
    )
    return note + yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def _check(recipe: dict[str, Any], folders: dict[str, Path], prompts: dict[str, list[str]]) -> str:
    """Refuse what gives no mixture, or none that works; returns the mixture's architecture."""
    members, mode, many = recipe["members"], *(recipe["parameters"][k] for k in ("gate_mode", "experts_per_token"))
    what = f"the mixture of {', '.join(members)}"
    if len(members) < 2:
        raise Failure(f"{what}: found {len(members)} members, expected at least 2")
    if not 1 <= many <= len(members):
        raise Failure(f"{what}: experts_per_token is {many}, expected 1 to {len(members)}, the number of members")
    if mode not in GATE_MODES:
        raise Failure(f"{what}: gate_mode is {mode!r}, expected one of {', '.join(GATE_MODES)}")
    if mode not in RANDOM:
        for name in members:
            if not any(t.strip() for t in prompts.get(name, [])):
                raise Failure(
                    f"{what}: no text for {name}, which gate_mode {mode} needs to make its part of the router"
                )
        # The next two are mergekit-moe's own refusals.
        if all(prompts[name] == prompts[members[0]] for name in members):
            raise Failure(f"{what}: all have the same texts, so that the router could not tell them apart")
        if len({folders[name].resolve() for name in members}) == 1:
            raise Failure(f"{what}: all are the same folder, {folders[members[0]]}")
    return mixture_of(folders[recipe["base"]])


def _write_average(members: dict[str, Path], base: Path, folder: Path) -> "dict[str, torch.Tensor]":
    """Write the members' average as mergekit-moe wants its base model; returns the classification head, left out of it."""
    import torch
    from mergekit.architecture import arch_info_for_config

    from mllm.merging.compatibility import open_alike
    from mllm.merging.mergekit_private import merge_state_dicts
    from mllm.merging.tensor_files import write

    opened, names = open_alike(members, base)
    config = read_json(base / "config.json")
    config["architectures"] = [config["architectures"][0].replace(*HEADS)]
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    # mergekit-moe takes the tensors that it knows and leaves the others out without a word.
    loaded = _reference(folder).config()
    known = {w.name for w in arch_info_for_config(loaded).all_weights(loaded)}
    dropped = [n for n in names if n not in known and not n.startswith(HEAD)]
    if dropped:
        raise Failure(
            f"{base}: mergekit-moe would leave out {len(dropped)} tensors, the first: {dropped[0]}; "
            f"blend the experts' predictions instead"
        )

    def average(name: str) -> torch.Tensor:
        tensors = {member: {name: weights.read(name)} for member, weights in opened.items()}
        return merge_state_dicts(tensors, "linear", parameters={"weight": 1.0}, dtype=torch.float32)[name]

    shapes = {n: next(iter(opened.values())).shape(n) for n in names if n in known}
    layout = {n: (torch.float32, shape) for n, shape in shapes.items()}
    write(folder / WEIGHTS, layout, ((n, average(n)) for n in progress(shapes, "average")))
    return {n: average(n) for n in names if n not in known}


def _router(mode: str, seed: int, average: Path, tokenizer: Any, texts: dict[str, list[str]]) -> "torch.Tensor":
    """The router's weights, layers × experts × width, by mergekit-moe's functions.

    Its command gives them all texts at once, behind a start token, padded and uncut, to a model in bfloat16; its
    averages take the padding in. Here the model is in float32 and sees one text at a time, as the experts see it.
    """
    import torch
    from mergekit.moe import router
    from mergekit.moe.config import Expert
    from transformers import AutoModel, BatchEncoding

    reference = _reference(average)
    if mode in RANDOM:
        experts = [Expert(source_model=reference) for _ in texts]
        torch.manual_seed(seed)
        return router.get_gate_params(reference, tokenizer, experts, mode=mode)
    encoded = {name: tokenizer(several, truncation=True)["input_ids"] for name, several in texts.items()}
    encoded = {name: [ids or [tokenizer.eos_token_id] for ids in several] for name, several in encoded.items()}
    if mode == "cheap_embed":
        embed, layers = reference.lazy_loader().get_tensor(EMBEDDING), reference.config().num_hidden_layers
        vectors = []
        for several in encoded.values():
            # All tokens as one text, and only the embeddings needed: mergekit makes a matrix of text × vocabulary.
            used, ids = torch.unique(torch.tensor([i for ids in several for i in ids]), return_inverse=True)
            tokens = {"input_ids": ids[None], "attention_mask": torch.ones_like(ids[None])}
            vectors.append(router.get_cheap_embedding(embed[used], tokens, layers, len(used)))
        return torch.stack(vectors, dim=1)
    model = AutoModel.from_pretrained(average, dtype=torch.float32, use_safetensors=True).eval()
    vectors = []
    for several in progress(encoded.values(), "texts for the router", total=len(encoded), unit="member"):
        states = [
            router.get_hidden_states(model, BatchEncoding({"input_ids": torch.tensor([ids])}), mode == "hidden_avg")
            for ids in several
        ]
        vectors.append(torch.nn.functional.normalize(torch.stack(states).mean(dim=0), dim=-1))
    return torch.stack(vectors, dim=1)


def _mix(
    recipe: dict[str, Any], mixture: str, folders: dict[str, Path], average: Path, router: "torch.Tensor", folder: Path
) -> None:
    """Let mergekit-moe write the mixture, without a classification head."""
    from mergekit.moe import ALL_OUTPUT_ARCHITECTURES
    from mergekit.moe.config import Expert, MoEMergeConfig
    from mergekit.options import MergeOptions

    name = {"Mixtral": "Mixtral", "Qwen2Moe": "Qwen MoE", "Qwen3Moe": "Qwen3 MoE"}[mixture.partition("For")[0]]
    (writer,) = (a for a in ALL_OUTPUT_ARCHITECTURES if a.name() == name)
    count = len(recipe["members"])
    shared = [Expert(source_model=_reference(average), residual_scale=SHARED_SCALE)]
    config = MoEMergeConfig(
        base_model=_reference(average),
        experts=[Expert(source_model=_reference(folders[m])) for m in recipe["members"]],
        shared_experts=shared if router.shape[1] > count else None,
        gate_mode=recipe["parameters"]["gate_mode"],
        experts_per_token=recipe["parameters"]["experts_per_token"],
        dtype=recipe["out_dtype"],
    )
    writer.write_model(str(folder), config, MergeOptions(), [g[:count] for g in router], [g[count:] for g in router])


def _write(
    made: Path, head: "dict[str, torch.Tensor]", mixture: str, recipe: dict[str, Any], base: Path, folder: Path
) -> str:
    """Write the model folder: what the base's configuration says holds for the mixture too, its tokenizer as well."""
    import torch

    from mllm.merging.merge import copy_but_weights
    from mllm.merging.tensor_files import Weights, check_finite, write

    weights, out_dtype = Weights(made), getattr(torch, recipe["out_dtype"])
    layout = {n: (out_dtype, weights.shape(n)) for n in weights} | {n: (out_dtype, h.shape) for n, h in head.items()}
    # mergekit-moe turns off sliding windows, for one.
    of_the_mixture = ("architectures", "model_type", "dtype", "torch_dtype", "transformers_version")
    kept = {k: v for k, v in read_json(base / "config.json").items() if k not in of_the_mixture}
    config = {**read_json(made / "config.json"), **kept, "architectures": [mixture]}
    folder.mkdir()
    copy_but_weights(base, folder)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n")

    def tensor(name: str) -> torch.Tensor:
        try:
            value = weights.read(name) if name in weights else head[name].to(out_dtype)
            check_finite(value, name)
        except Failure:  # the members' are finite, or their average could not have been made
            raise Failure(
                f"the mixture of {', '.join(recipe['members'])}: {name} is not finite in {recipe['out_dtype']}"
            ) from None
        return value

    return write(folder / WEIGHTS, dict(sorted(layout.items())), ((n, tensor(n)) for n in sorted(layout)))


def _reference(folder: Path) -> "ModelReference":
    """A folder as mergekit wants it; not as text, in which + and @ have meanings."""
    from mergekit.common import ModelPath, ModelReference

    return ModelReference(model=ModelPath(path=str(folder)))


@contextlib.contextmanager
def _quiet() -> Iterator[list[str]]:
    """Keep mergekit's and transformers' bars and messages back; yields what mergekit logs meanwhile."""
    from transformers import logging as transformers_log

    said: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        said.append(record.getMessage())
        return False

    root, mergekit, verbosity = logging.getLogger(), logging.getLogger("mergekit"), transformers_log.get_verbosity()
    level = mergekit.level
    root.addFilter(keep)  # mergekit-moe logs to the root logger itself; what reaches that from others passes
    handler = logging.NullHandler()  # without any, the root logger would make one that writes to the stream below
    root.addHandler(handler)
    mergekit.setLevel(logging.ERROR)
    transformers_log.set_verbosity_error()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield said
    finally:
        root.removeFilter(keep)
        root.removeHandler(handler)
        mergekit.setLevel(level)
        transformers_log.set_verbosity(verbosity)
