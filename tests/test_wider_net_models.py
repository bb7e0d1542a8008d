"""Test model folders of 24 architectures: tensors missing, renamed, misshapen or superfluous, tokenizers in any form.

An accepted folder has the weights that were saved, and predicts with them; a message refuses all others (`make net`).
"""

import copy
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from mllm.core.errors import Failure
from mllm.models import pretrained, scratch
from mllm.models.families.classifier import ClassifierScorer
from mllm.models.heads import head_modules
from tiny_architectures import ENDED, OWN, tiny
from tiny_models import LABELS, predicted

TIMES = int(os.environ.get("MLLM_NET", 1))
TEXTS = ["it helped me and the pain went away", "no effect at all, only a headache", "I sleep better now"] * 9
WORDS = {ended: scratch.train_tokenizer(TEXTS, 300, 16, ended) for ended in (False, True)}
"""Tokenizers by whether an end follows each text."""
State = dict[str, torch.Tensor]


# ── What happens to one tensor, and to all of them ──


def missing(state: State, name: str) -> State:
    return {n: v for n, v in state.items() if n != name}


def renamed(state: State, name: str) -> State:
    return missing(state, name) | {f"{name}_old": state[name]}


def without_prefix(state: State, name: str) -> State:
    return missing(state, name) | {name.partition(".")[2] or f"{name}.weight": state[name]}


def misshapen(state: State, name: str) -> State:
    return state | {name: torch.zeros(7, 7)}


def a_row_more(state: State, name: str) -> State:
    return state | {name: torch.cat([state[name], state[name][:1]])}


def with_nan(state: State, name: str) -> State:
    return state | {name: torch.full_like(state[name], torch.nan)}


ONE = {f.__name__: f for f in (missing, renamed, without_prefix, misshapen, a_row_more, with_nan)}
ALL: dict[str, tuple[Callable[[State], State], bool | None]] = {
    "nothing": (lambda s: s, True),
    "module. before all": (lambda s: {f"module.{n}": v for n, v in s.items()}, False),
    "model. before all": (lambda s: {f"_orig_mod.{n}": v for n, v in s.items()}, False),
    "another head": (lambda s: s | {"qa_outputs.weight": torch.zeros(2, 32), "mc_score.bias": torch.zeros(1)}, True),
    "a layer more": (lambda s: s | {n.replace(".1.", ".7."): v.clone() for n, v in s.items() if ".1." in n}, None),
    "a copy of all": (lambda s: s | {f"teacher.{n}": v.clone() for n, v in s.items()}, None),
    "half precision": (lambda s: {n: v.half() if v.is_floating_point() else v for n, v in s.items()}, True),
    "empty": (lambda s: {}, False),
}
"""Case -> the change, and whether such a checkpoint is accepted (None: either, if its weights are the saved ones)."""


def configured(**values):
    def change(folder: Path) -> None:
        file = folder / "config.json"
        config = json.loads(file.read_text()) | values
        file.write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))

    return change


def one_layer_less(folder: Path) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text())
    for key in ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers"):
        if isinstance(config.get(key), int):
            config[key] -= 1
    for key in ("layer_types",):
        if isinstance(config.get(key), list):
            config[key] = config[key][:-1]
    file.write_text(json.dumps(config))


CONFIGURATIONS: dict[str, tuple[Callable[[Path], object], bool | None]] = {
    "as saved": (lambda folder: None, True),
    "a tool's key": (configured(unsloth_version="2024.9", trained_with={"x": 1}), True),
    "no architectures": (configured(architectures=...), True),
    "another dtype": (configured(dtype="bfloat16", torch_dtype="float16"), True),
    "no model type": (configured(model_type=...), False),
    "an unknown model type": (configured(model_type="gpt9"), False),
    "one layer less": (one_layer_less, None),
    "no JSON": (lambda folder: (folder / "config.json").write_text("{"), False),
    "a list": (lambda folder: (folder / "config.json").write_text("[]"), False),
}


# ── Forms of a tokenizer: what is written into the folder of a model that needs ``words`` ──


def more_tokens(folder: Path, words) -> None:
    tokenizer = copy.deepcopy(words)
    tokenizer.add_tokens([f"<{i}>" for i in range(400)])
    tokenizer.save_pretrained(folder)


def nothing_to_pad_with(folder: Path, words) -> None:
    tokenizer = copy.deepcopy(words)
    tokenizer.pad_token = tokenizer.eos_token = tokenizer.bos_token = None
    tokenizer.save_pretrained(folder)


def half_a_tokenizer(folder: Path, words) -> None:
    (folder / "vocab.json").write_text(json.dumps(words.get_vocab()))


def a_file(text: str):
    return lambda folder, words: (folder / "tokenizer.json").write_text(text)


TOKENIZERS: dict[str, tuple[Callable[[Path, Any], object], bool | None]] = {
    "whole": (lambda folder, words: words.save_pretrained(folder), True),
    "its file alone": (lambda folder, words: words.backend_tokenizer.save(str(folder / "tokenizer.json")), None),
    "none": (lambda folder, words: None, False),
    "of a newer library": (a_file('{"version": "9", "model": {"type": "New"}}'), False),
    "half": (half_a_tokenizer, False),
    "empty": (a_file(""), False),
    "a list": (a_file("[]"), False),
    "more tokens than rows": (more_tokens, False),
    "nothing to pad with": (nothing_to_pad_with, False),
}


# ── Cases ──


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return architecture -> a folder with its weights, in one file or in several; each is saved once."""
    root = tmp_path_factory.mktemp("saved")

    def folder(kind: str, sharded: bool) -> Path:
        path = root / f"{kind}{'-sharded' * sharded}"
        if not path.exists():
            tiny(kind).save_pretrained(path, max_shard_size="30KB" if sharded else "1GB")
        return path

    return folder


def rewrite(file: Path, change: Callable[[State], State]) -> None:
    save_file({n: v.contiguous() for n, v in change(load_file(file)).items()}, file, metadata={"format": "pt"})


def damage(draw, folder: Path, optional: Callable[[str], bool], words) -> tuple[str, bool | None]:
    """Do something to a model folder.

    Args:
        draw: the draw of hypothesis.
        folder: a folder that is complete except for its tokenizer.
        optional: whether a tensor may be missing.
        words: its tokenizer.

    Returns:
        The change, and whether the folder must now be accepted (None: either).
    """
    what = draw(st.sampled_from(["a tensor", "all tensors", "configuration", "tokenizer", "files"]))
    files = sorted(folder.glob("*.safetensors"))
    how = "whole"
    if what == "tokenizer":
        how = draw(st.sampled_from(sorted(TOKENIZERS)))
    TOKENIZERS[how][0](folder, words)
    expected = TOKENIZERS[how][1]
    if what == "a tensor":
        file = draw(st.sampled_from(files))
        name, how = draw(st.sampled_from(sorted(load_file(file)))), draw(st.sampled_from(sorted(ONE)))
        rewrite(file, lambda state: ONE[how](state, name))
        # A body's names are known with and without the prefix that a model with a head gives them.
        either = optional(name) or how == "without_prefix"
        return f"a tensor {how}: {name}", None if either else False
    if what == "all tensors":
        how = draw(st.sampled_from(sorted(ALL)))
        for file in files:
            rewrite(file, ALL[how][0])
        return f"all tensors: {how}", ALL[how][1]
    if what == "configuration":
        how = draw(st.sampled_from(sorted(CONFIGURATIONS)))
        CONFIGURATIONS[how][0](folder)
        return f"configuration: {how}", CONFIGURATIONS[how][1]
    if what == "files":
        file = draw(st.sampled_from(files))
        how = draw(st.sampled_from(["missing", "cut", "longer", "empty", "a pointer"]))
        content = file.read_bytes()
        file.unlink()
        pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 498000\n"
        if how != "missing":
            file.write_bytes({"cut": content[:-9], "longer": content + b"0", "empty": b"", "a pointer": pointer}[how])
        return f"a file {how}", False
    return f"tokenizer: {how}", expected


@settings(
    max_examples=60 * TIMES, deadline=None, derandomize=TIMES == 1,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(data=st.data())
def test_any_model_folder_is_taken_with_its_weights_or_refused(saved, tmp_path, data):
    kind, base, sharded = (data.draw(st.sampled_from(s)) for s in (sorted(OWN), [True, False], [True, False, False]))
    model, folder, words = tiny(kind), tmp_path / "M", WORDS[kind in ENDED]
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(saved(kind, sharded), folder)
    head = tuple(f"{name}." for name in head_modules(model))

    def drawn(name: str) -> bool:
        """Return whether a base may lack it: the head, and the modules between body and head."""
        return base and (name.startswith(head) or "pooler" in name)

    what, expected = damage(data.draw, folder, drawn, words)
    event(what.partition(":")[0] if what.startswith("a tensor") else what)
    load = pretrained.from_checkpoint if base else pretrained.as_it_is
    try:
        found, tokenizer = load(folder, "classifier", *([LABELS] if base else []), 14, *([1] if base else []))
    except Failure as refused:
        assert expected is not True, refused
        assert str(folder) in str(refused)
        event("refused")
        return
    assert expected is not False, f"{kind} ({'base' if base else 'as it is'}) was taken: {what}"
    event("taken")
    own, wanted = found.state_dict(), model.state_dict()
    halved = "half precision" in what
    for name, value in wanted.items():
        if not drawn(name):
            assert torch.equal(own[name], value.half().float() if halved and value.is_floating_point() else value), name
    assert all(v.isfinite().all() for v in own.values() if v.is_floating_point())
    text = TEXTS[2]
    assert tokenizer(text)["input_ids"] == words(text)["input_ids"]
    logp = torch.tensor(predicted(ClassifierScorer(found.eval(), tokenizer), [text, TEXTS[0]]))
    assert logp.shape == (2, 3) and logp.isfinite().all()
    if not base:
        ids = torch.tensor([words(text)["input_ids"]])
        with torch.inference_mode():
            by_hand = model(input_ids=ids).logits.log_softmax(-1)
        other = (
            kind == "albert" and "one layer less" in what
        )  # its layers share their weights: the configuration says how many
        assert (ids.shape[1] < 14 and other) or torch.allclose(logp[:1], by_hand, atol=2e-2 if halved else 1e-4)
