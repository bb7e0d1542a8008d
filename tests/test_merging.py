"""Merges against the mergekit-yaml command (bit for bit) and against formulas in double precision."""

import argparse
import json
from pathlib import Path

import pytest
import torch
import yaml
from mergekit.scripts.run_yaml import main as mergekit_yaml
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2ForSequenceClassification

import merge
from conftest import run_script
from mllm import checkpoints, merging, recipes
from mllm.bases import label_config, train_tokenizer
from mllm.cli import Failure

LABELS = ["negative", "neutral", "positive"]
MEMBERS = ["a", "b", "c"]


def tiny_gpt2():
    config = GPT2Config(
        vocab_size=300, n_positions=16, n_embd=32, n_layer=2, n_head=2, pad_token_id=1, **label_config(LABELS)
    )
    return GPT2ForSequenceClassification(config)


def tiny_bert():
    config = BertConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=16, **label_config(LABELS),
    )  # fmt: skip
    return BertForSequenceClassification(config)


@pytest.fixture(scope="module", params=[tiny_gpt2, tiny_bert], ids=["gpt2", "bert"])
def models(request, tmp_path_factory) -> Path:
    return make_models(request.param, tmp_path_factory.mktemp(request.param.__name__))


def make_models(architecture, folder: Path) -> Path:
    """A base and three experts near it, as folders."""
    torch.manual_seed(0)
    base = architecture()
    tokenizer = train_tokenizer(["some words to make a vocabulary of"] * 3, 300, 16)
    checkpoints.save(base, tokenizer, folder / "base", {"kind": "base"})
    state = base.state_dict()
    for name in MEMBERS:
        base.load_state_dict(
            {k: v + 0.02 * torch.randn_like(v) if v.is_floating_point() else v for k, v in state.items()}
        )
        checkpoints.save(base, tokenizer, folder / name, {"kind": "expert"})
        base.load_state_dict(state)
    return folder


RECIPES = [
    {"method": "linear"},
    {"method": "linear", "weight": {"a": 1.0, "b": 0.5, "c": 0.25}},
    {"method": "slerp", "members": ["b", "a"], "t": 0.3},
    {"method": "task_arithmetic", "lambda": 0.5},
    {"method": "task_arithmetic", "weight": {"a": 1.0, "b": -0.5, "c": 0.25}, "normalize": True},
    {"method": "ties", "density": 0.3, "lambda": 0.8},
    {"method": "ties", "density": 0.6, "weight": {"a": 0.7, "b": 0.2, "c": 0.1}, "normalize": False},
    {"method": "dare_linear", "density": 0.5, "weight": 0.4, "seed": 3},
    {"method": "dare_linear", "density": 0.9, "rescale": False, "seed": 4},
    {"method": "dare_ties", "density": 0.7, "weight": {"a": 0.5, "b": 0.3, "c": 0.4}, "seed": 5},
]


def recipe_of(values: dict) -> dict:
    entry = recipes.METHODS[values["method"]].model_validate({"members": MEMBERS, **values})
    (recipe,) = recipes.expand(entry, entry.members, 17)
    return recipe.canonical()


def merged(models: Path, recipe: dict) -> dict[str, torch.Tensor]:
    return merging.merge(recipe, {n: models / n for n in ("base", *recipe["members"])}, models / "base")


@pytest.mark.parametrize("values", RECIPES, ids=lambda v: v["method"])
def test_mergekit_yaml_makes_the_same_bits(models, tmp_path, values):
    """The script's weights, and those of the command that its mergekit.yaml names on the first line."""
    recipe = recipe_of(values)
    merge.main(argparse.Namespace(recipe=recipe, models=models, base="base", output=tmp_path / "ours"))
    written = (tmp_path / "ours/mergekit.yaml").read_text()
    command = written.splitlines()[0].removeprefix("# ").split("   ")[0].split()
    assert command[:3] == ["mergekit-yaml", "mergekit.yaml", "OUTPUT"]
    assert set(yaml.safe_load(written)) <= {"merge_method", "models", "base_model", "dtype", "parameters"}
    # The command itself, without the seconds that its process takes to start.
    mergekit_yaml.main(
        [str(tmp_path / "ours/mergekit.yaml"), str(tmp_path / "theirs"), "--quiet", *command[3:]], standalone_mode=False
    )
    ours, theirs = (
        load_file(tmp_path / "ours/model/model.safetensors"),
        load_file(tmp_path / "theirs/model.safetensors"),
    )
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert ours[name].dtype == theirs[name].dtype == torch.float32
        assert torch.equal(ours[name], theirs[name]), name
    # The folder loads, and says what it is.
    model, _ = checkpoints.load_classifier(tmp_path / "ours/model")
    assert model.config.id2label == dict(enumerate(LABELS))
    card = json.loads((tmp_path / "ours/merge.json").read_text())
    assert card["recipe"] == recipe
    assert set(card["parents"]) == {"base", *recipe["members"]}


def double(models: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {n: {k: v.double() for k, v in checkpoints.read_state(models / n).items()} for n in ("base", *MEMBERS)}


def reference(values: dict, s: dict, k: str) -> torch.Tensor:
    """The papers' formulas with mergekit's conventions, written from their definitions."""
    recipe = recipe_of(values)
    p, names = recipe["parameters"], recipe["members"]
    base, tensors = s["base"][k], [s[n][k] for n in names]
    weight = p.get("weight", 1.0)
    w = [weight[n] if isinstance(weight, dict) else weight for n in names]
    if values["method"] == "linear":
        return sum(wi * x for wi, x in zip(w, tensors, strict=True)) / sum(w)
    if values["method"] == "slerp":
        x, y = tensors
        cos = (
            (x.flatten() @ y.flatten() / (x.norm() * y.norm())).clamp(-1, 1)
            if x.norm() * y.norm() > 0
            else torch.tensor(1.0)
        )
        if abs(cos) > 0.9995:
            return (1 - p["t"]) * x + p["t"] * y
        angle = torch.acos(cos)
        return (torch.sin((1 - p["t"]) * angle) * x + torch.sin(p["t"] * angle) * y) / torch.sin(angle)
    deltas = [x - base for x in tensors]
    if values["method"] == "task_arithmetic":
        total = sum(wi * d for wi, d in zip(w, deltas, strict=True)) / (sum(w) if p["normalize"] else 1)
        return base + p["lambda"] * total
    trimmed = []
    for d in deltas:
        keep = max(1, int(p["density"] * d.numel()))
        top = d.abs().flatten().topk(keep).indices
        mask = torch.zeros(d.numel(), dtype=torch.bool)
        mask[top] = True
        trimmed.append(torch.where(mask.view_as(d), d, 0.0))
    stack = torch.stack([wi * d for wi, d in zip(w, trimmed, strict=True)])
    sign = torch.where(stack.sum(0) >= 0, 1.0, -1.0)
    agree = (stack.sign() == sign) & (stack != 0)
    total = (stack * agree).sum(0)
    if p["normalize"]:
        share = (torch.tensor(w).double().view(-1, *[1] * base.dim()) * agree).sum(0)
        total = torch.where(share.abs() < 1e-8, total, total / share)
    return base + p["lambda"] * total


@pytest.mark.parametrize(
    "values", [r for r in RECIPES if not r["method"].startswith("dare")], ids=lambda v: v["method"]
)
def test_formulas(models, values):
    found, states = merged(models, recipe_of(values)), double(models)
    for name, tensor in found.items():
        # TIES may keep another of two entries that are equal in float32 and not in float64: allow one in ten thousand.
        off = ((tensor.double() - reference(values, states, name)).abs() > 1e-6).double().mean()
        assert off <= (1e-4 if values["method"] == "ties" else 0), name


def close(a, b):
    return all(torch.allclose(a[k], b[k], atol=1e-6) for k in a)


def test_identities(models):
    state = {n: checkpoints.read_state(models / n) for n in ("base", *MEMBERS)}
    of = lambda **values: merged(models, recipe_of(values))  # noqa: E731
    assert close(of(method="slerp", members=["a", "b"], t=0.0), state["a"])
    assert close(of(method="slerp", members=["a", "b"], t=1.0), state["b"])
    assert close(of(method="task_arithmetic", **{"lambda": 0.0}), state["base"])
    assert close(of(method="ties", density=1.0, members=["a"]), state["a"])
    assert close(of(method="linear", weight=0.2), of(method="linear", weight=5.0))
    ta = of(method="task_arithmetic")
    assert close(of(method="dare_linear", density=1.0, seed=1), ta)
    assert not close(of(method="dare_linear", density=0.5, seed=1), of(method="dare_linear", density=0.5, seed=2))


def test_dare_keeps_the_stated_share(models):
    states = {n: checkpoints.read_state(models / n) for n in ("base", "a")}
    found = merged(models, recipe_of({"method": "dare_linear", "members": ["a"], "density": 0.3, "seed": 11}))
    kept = total = 0
    for name, value in states["base"].items():
        if (states["a"][name] != value).any():
            kept += (found[name] != value).sum().item()
            total += value.numel()
    assert kept / total == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / total) ** 0.5 + 0.001)


def test_the_same_bytes_whatever_the_hash_seed(models, tmp_path, monkeypatch):
    recipe = json.dumps(recipe_of({"method": "dare_ties", "density": 0.5, "seed": 1}))
    written = set()
    for hash_seed in ("0", "1"):
        monkeypatch.setenv("PYTHONHASHSEED", hash_seed)
        run_script("merge", "--recipe", recipe, "--models", models, "--output", tmp_path / hash_seed)
        written.add((tmp_path / hash_seed / "model/model.safetensors").read_bytes())
    assert len(written) == 1


# ── What must be refused, with what stood there before untouched ──


def permute_labels(folder):
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {"0": "positive", "1": "neutral", "2": "negative"}
    (folder / "config.json").write_text(json.dumps(config))


def cut_weights(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def change_state(change):
    def damage(folder):
        state = load_file(folder / "model.safetensors")
        change(state)
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})

    return damage


def first_float(state):
    return next(k for k in sorted(state) if state[k].dim() == 2)


DAMAGES = {
    "permuted labels": (permute_labels, "b/config.json: id2label has the same labels in another order: found positive"),
    "half-written": (cut_weights, "bytes, its header announces"),
    "only a beginning": (lambda f: (f / "model.safetensors").write_bytes(b"\x10\0\0"), "only its beginning"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing"),
    "a pickle": (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "pytorch_model.bin is a pickle"),
    "no config": (lambda f: (f / "config.json").unlink(), "b/config.json: no such file"),
    "NaN": (change_state(lambda s: s[first_float(s)].view(-1)[3:4].fill_(float("nan"))), "holds NaN or infinite"),
    "other shape": (change_state(lambda s: s.update({first_float(s): torch.zeros(3, 5)})), "has shape (3, 5), in"),
    "lacks a tensor": (change_state(lambda s: s.pop(first_float(s))), "lacks 1 tensors that"),
    "has one more": (change_state(lambda s: s.update(extra=torch.zeros(1))), "has 1 tensors that"),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGES)
def test_refused_with_one_line_and_nothing_lost(tmp_path, what):
    damage, message = DAMAGES[what]
    folder = make_models(tiny_gpt2, tmp_path / "models")
    damage(folder / "b")
    out = tmp_path / "out"
    (out / "model").mkdir(parents=True)
    (out / "model/before").write_text("before")
    printed = run_script(
        "merge", "--recipe", json.dumps(recipe_of({"method": "linear"})), "--models", folder, "--output", out, ok=False
    )
    assert message in printed
    assert printed.startswith("error: ")
    assert len(printed.splitlines()) == 1
    assert [p.name for p in out.rglob("*") if p.is_file()] == ["before"]


def test_a_sharded_checkpoint_is_read_whole(models, tmp_path):
    state = checkpoints.read_state(models / "a")
    names = sorted(state)
    halves = {"x-1.safetensors": names[::2], "x-2.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({n: state[n] for n in part}, tmp_path / file)
    weight_map = {n: f for f, part in halves.items() for n in part}
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    again = checkpoints.read_state(tmp_path)
    assert list(again) == names
    assert all(torch.equal(again[n], state[n]) for n in names)
    (tmp_path / "x-2.safetensors").unlink()
    with pytest.raises(Failure, match=r"x-2\.safetensors is missing"):
        checkpoints.read_state(tmp_path)
