"""``models/loading.py`` compares loaded weights with their files in every case: each role, each family."""

import argparse
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForSequenceClassification

import merge
from conftest import SCRIPTS
from mllm.core.errors import Failure
from mllm.models import checkpoint_files, loading, pretrained, scratch
from mllm.models.heads import label_config
from tiny_models import FAMILIES, LABELS, make_models, recipe_of

FAMILY = {"llama": "causal", "flan-t5 untied": "text2text"}  # else a classifier


@pytest.fixture(scope="module", params=FAMILIES)
def made(request, tmp_path_factory):
    """Return a family's name, and a folder with its base, members and a merge of them."""
    folder = make_models(FAMILIES[request.param], tmp_path_factory.mktemp("made"))
    given = argparse.Namespace(
        recipe=recipe_of({"method": "linear"}), models=folder, base="base", gpus=0, kept=None, output=folder / "merge"
    )
    merge.main(given)
    shutil.move(folder / "merge/model", folder / "merged")
    if request.param == "t5 classifier":  # reads its answer at an end
        for name in ("base", "a", "b", "merged"):
            scratch.train_tokenizer(["some words"] * 3, 300, 16, ended=True).save_pretrained(folder / name)
            config = json.loads((folder / name / "config.json").read_text())
            (folder / name / "config.json").write_text(json.dumps(config | {"eos_token_id": 0}))
    return FAMILY.get(request.param, "classifier"), folder


def in_shards(folder: Path) -> Path:
    """Write the same checkpoint as two files and an index."""
    state = load_file(folder / "model.safetensors")
    names = sorted(state)
    where = {n: f"model-0000{1 + (i >= len(names) // 2)}-of-00002.safetensors" for i, n in enumerate(names)}
    for file in set(where.values()):
        save_file({n: state[n] for n in names if where[n] == file}, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors").unlink()
    index = {"metadata": {"total_size": sum(v.nbytes for v in state.values())}, "weight_map": where}
    (folder / checkpoint_files.INDEX).write_text(json.dumps(index))
    return folder


ROLES = {
    "base": ("base", lambda folder, family: loading.load_model(folder, family)[0]),
    "expert": ("a", lambda folder, family: loading.load_model(folder, family)[0]),
    "merge and export": ("merged", lambda folder, family: loading.load_model(folder, family)[0]),
    "reference": ("a", lambda folder, family: pretrained.as_it_is(folder, family, 14)[0]),
    "pretrained": ("base", lambda folder, family: pretrained.from_checkpoint(folder, family, LABELS, 14, 1)[0]),
    "published expert": ("b", lambda folder, family: loading.load_weights(folder, family, headless=False)),
}


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("role", ROLES)
def test_each_role_is_compared_with_its_files_in_both_directions(made, tmp_path, role, sharded):
    family, folder = made
    name, load = ROLES[role]
    shutil.copytree(folder / name, tmp_path / "M")
    whole = in_shards(tmp_path / "M") if sharded else tmp_path / "M"
    state, own = loading.read_state(whole), load(whole, family).state_dict()
    head = ("score.", "classifier.", "classification_head.") if role == "pretrained" else ()
    body = [n for n in state if not n.startswith(head or ("\0",))]
    assert all(torch.equal(own[n], state[n]) for n in body)
    file = next(f for f in checkpoint_files.weight_files(whole) if set(body) & set(load_file(f)))
    parts = load_file(file)
    first = next(n for n in body if n in parts and ".0." in n)
    for change, message in (
        ({n: v for n, v in parts.items() if n != first}, "weights of .* are missing"),
        ({(f"{n}_old" if n == first else n): v for n, v in parts.items()}, "fit no module|are missing"),
        (parts | {first.replace(".0.", ".9."): parts[first].clone()}, "fit no module"),
        (parts | {first: torch.zeros(3, 5)}, r"found shape \(3, 5\)"),
        (parts | {first: torch.full_like(parts[first], torch.nan)}, "holds NaN values"),
    ):
        save_file(change, file, metadata={"format": "pt"})
        with pytest.raises(Failure, match=message):
            load(whole, family)


@pytest.mark.parametrize("made", FAMILY, indirect=True)
@pytest.mark.parametrize("tied", [True, False])
def test_what_a_configuration_ties_is_compared_too(made, tmp_path, tied):
    family, folder = made
    shutil.copytree(folder / "base", tmp_path / "M")
    config = json.loads((tmp_path / "M/config.json").read_text())
    (tmp_path / "M/config.json").write_text(json.dumps(config | {"tie_word_embeddings": tied}))
    state = load_file(tmp_path / "M/model.safetensors")
    # The file's output layer differs from its embeddings: it is loaded as it is, or refused if it is tied.
    try:
        own = loading.load_model(tmp_path / "M", family)[0].state_dict()
    except Failure as refused:
        assert tied and "differs from the file once" in str(refused)
    else:
        assert torch.equal(own["lm_head.weight"], state["lm_head.weight"])
        assert not torch.equal(own["lm_head.weight"], state[next(n for n in state if "shared" in n or "embed" in n)])


def test_the_body_that_a_mixture_s_router_reads_is_compared(tmp_path):
    config = LlamaConfig(vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
                         intermediate_size=48, max_position_embeddings=16, **label_config(LABELS))  # fmt: skip
    model = LlamaForSequenceClassification(config)
    model.save_pretrained(tmp_path)
    body = loading.load_body(tmp_path)
    assert torch.equal(body.embed_tokens.weight, model.model.embed_tokens.weight)
    state = load_file(tmp_path / "model.safetensors")
    save_file(
        {n: v for n, v in state.items() if "layers.1.mlp" not in n}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(Failure, match="3 weights of a model without a head of type llama are missing"):
        loading.load_body(tmp_path)


def test_the_best_weights_of_a_training_are_all_there(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 2))
    model[0].requires_grad_(False)
    best = {n: torch.ones_like(p) for n, p in model.named_parameters() if p.requires_grad}
    save_file(best, tmp_path / "best.safetensors")
    loading.load_into(model, tmp_path / "best.safetensors")
    assert (model[1].weight == 1).all() and not (model[0].weight == 1).all()
    for change, message in (
        ({"1.weight": best["1.weight"]}, "lacks 1.bias. Fix: delete it and rerun"),
        ({**best, "module.1.bias": best["1.bias"].clone()}, r"holds module\.1\.bias, which fits no module"),
    ):
        save_file(change, tmp_path / "best.safetensors")
        with pytest.raises(Failure, match=message):
            loading.load_into(model, tmp_path / "best.safetensors")


def test_nothing_else_loads_weights_or_tokenizers():
    """Loading happens in one place: a module that loads by itself would not compare weights with their files."""
    allowed = {
        "models/loading.py": 2,
        "models/tokenizers.py": 2,
        "merging/compatibility.py": 1,
        "merging/recipe_file.py": 1,
        "reporting/model_card.py": 1,
        "reporting/model_card_tasks.py": 1,
    }  # one each of loading and compatibility: configurations; of the last three: text that says how to load a model
    found = {}
    for file in sorted(SCRIPTS.rglob("*.py")):
        count = sum(".from_pretrained(" in line for line in file.read_text(encoding="utf-8").splitlines())
        if count:
            found[str(file.relative_to(SCRIPTS / "mllm"))] = count
    assert found == allowed
