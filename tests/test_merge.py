"""Test the merge script: what it refuses, and that it always leaves a complete output or none."""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import merge
from conftest import SCRIPTS, run_script
from mllm.core.errors import Failure
from mllm.merging import compatibility, parents
from mllm.merging.merge import Merge
from mllm.models import checkpoint_files, loading
from mllm.models.scratch import train_tokenizer
from tiny_models import make_models, recipe_of, tiny_bert, tiny_gpt2, tiny_t5


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory) -> Path:
    return make_models(tiny_gpt2, tmp_path_factory.mktemp("gpt2"))


def test_the_same_bytes_whatever_the_hash_seed_and_the_order_of_members(gpt2, tmp_path, monkeypatch):
    written = set()
    for hash_seed, members in (("0", ["a", "b", "c"]), ("1", ["c", "a", "b"])):
        values = {
            "method": "dare_ties",
            "members": members,
            "density": 0.5,
            "seed": 1,
            "weight": {"a": 1, "b": 2, "c": 3},
        }
        monkeypatch.setenv("PYTHONHASHSEED", hash_seed)
        recipe = json.dumps(recipe_of(values))
        run_script("merge", "--recipe", recipe, "--models", gpt2, "--base", "base", "--output", tmp_path / hash_seed)
        written.add((tmp_path / hash_seed / "model/model.safetensors").read_bytes())
    assert len(written) == 1


def test_parents_are_read_for_their_digests_once(gpt2, tmp_path):
    model, kept = shutil.copytree(gpt2 / "a", tmp_path / "a"), tmp_path / "kept"
    found = parents.digest(model, model, kept)
    assert found == checkpoint_files.digest(model)
    assert parents.digest(model, tmp_path / "no-copy", kept) == found
    shutil.copyfile(gpt2 / "b/model.safetensors", model / "model.safetensors")
    assert parents.digest(model, model, kept) == checkpoint_files.digest(gpt2 / "b")


# ── What must be refused; earlier outputs stay untouched ──


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


def change_config(change, name="config.json"):
    def damage(folder):
        config = json.loads((folder / name).read_text())
        change(config)
        (folder / name).write_text(json.dumps(config))

    return damage


def add_token(tokenizer):
    vocabulary = tokenizer["model"]["vocab"]
    one, other = sorted(vocabulary)[:2]
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]


def first_float(state):
    return next(k for k in sorted(state) if state[k].dim() == 2)


DAMAGES = {
    "permuted labels": (permute_labels, "b/config.json: id2label has the same labels in another order (found positive"),
    "half-written": (cut_weights, "the file is cut or damaged (found "),
    "only a beginning": (lambda f: (f / "model.safetensors").write_bytes(b"\x10\0\0"), "only its beginning"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing"),
    "a pickle": (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "pytorch_model.bin is a pickle"),
    "no config": (lambda f: (f / "config.json").unlink(), "b/config.json: no such file"),
    "NaN": (change_state(lambda s: s[first_float(s)].view(-1)[3:4].fill_(float("nan"))), "holds NaN or infinite"),
    "other shape": (change_state(lambda s: s.update({first_float(s): torch.zeros(3, 5)})), "has shape (3, 5), in"),
    "lacks a tensor": (change_state(lambda s: s.pop(first_float(s))), "lacks 1 tensors that"),
    "other settings": (change_config(lambda c: c.update(activation_function="relu")), 'activation_function is "relu", in'),
    "other tokenizer": (change_config(add_token, "tokenizer.json"), "another tokenizer than"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer (tokenizer.json"),
    "unknown numbers": (change_state(lambda s: s.update(x=torch.zeros(2, dtype=torch.complex64))), "x is C64, expected"),
    "has one more": (change_state(lambda s: s.update(extra=torch.zeros(1))), "has 1 tensors that"),
}  # fmt: skip


def run_merge(recipe, models, output):
    merge.main(argparse.Namespace(recipe=recipe, models=models, base="base", gpus=0, kept=None, output=output))


def files_in(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("what", DAMAGES)
def test_refused_with_nothing_written_and_nothing_lost(tmp_path, what):
    damage, message = DAMAGES[what]
    folder = make_models(tiny_gpt2, tmp_path / "models")
    damage(folder / "b")
    out = tmp_path / "out"
    (out / "model").mkdir(parents=True)
    (out / "model/before").write_text("before")
    with pytest.raises(Failure) as caught:
        run_merge(recipe_of({"method": "linear"}), folder, out)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert files_in(out) == {"model/before": b"before"}


def test_refused_in_one_line(tmp_path):
    folder = make_models(tiny_gpt2, tmp_path / "models")
    permute_labels(folder / "b")
    recipe = json.dumps(recipe_of({"method": "linear"}))
    printed = run_script(
        "merge", "--recipe", recipe, "--models", folder, "--base", "base", "--output", tmp_path / "out", ok=False
    )
    assert printed.startswith("error: ")
    assert len(printed.splitlines()) == 1


def test_a_base_without_the_members_head_is_refused(tmp_path):
    """mergekit then computes the head's change against the shared embeddings."""
    models = make_models(tiny_t5, tmp_path / "models")
    change_state(lambda s: s.pop("lm_head.weight"))(models / "base")
    for method, more in (("task_arithmetic", {}), ("linear", {})):
        with pytest.raises(Failure, match=r"has 1 tensors that .*base lacks, the first: lm_head.weight; .*blend"):
            run_merge(recipe_of({"method": method, **more}), models, tmp_path / "out")


def test_copies_of_the_shared_embeddings_make_no_difference(tmp_path):
    """T5's files may or may not repeat shared embeddings under the encoder's and the decoder's names."""
    models = make_models(tiny_t5, tmp_path / "models")
    folders = {n: models / n for n in ("base", "a", "b", "c")}
    recipe = recipe_of({"method": "ties", "density": 0.5})
    plain = dict(Merge(recipe, folders, models / "base").tensors())
    copies = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    for name in ("base", "b"):
        change_state(lambda s: s.update({copy: s["shared.weight"].clone() for copy in copies}))(models / name)
    again = dict(Merge(recipe, folders, models / "base").tensors())
    assert plain.keys() == again.keys()
    assert all(torch.equal(plain[n], again[n]) for n in plain)
    change_state(lambda s: s.update({copies[0]: s["shared.weight"] + 1}))(models / "b")
    with pytest.raises(Failure, match=r"encoder\.embed_tokens\.weight"):
        Merge(recipe, folders, models / "base")


def test_another_architecture_is_refused_with_a_pointer_to_blends(tmp_path):
    make_models(tiny_gpt2, tmp_path / "models")
    make_models(tiny_bert, tmp_path / "others")
    shutil.rmtree(tmp_path / "models/b")
    shutil.copytree(tmp_path / "others/b", tmp_path / "models/b")
    with pytest.raises(Failure, match=r"architectures is .*BertForSequenceClassification.*; .*blend their predictions"):
        run_merge(recipe_of({"method": "linear"}), tmp_path / "models", tmp_path / "out")


def test_settings_that_do_not_change_the_function_may_differ(tmp_path):
    """Accept other dropout, keys that only newer transformers write, and keys about the file's origin."""
    models = make_models(tiny_gpt2, tmp_path / "models")
    recipe = recipe_of({"method": "linear"})
    change_config(lambda c: c.update(attn_pdrop=0.5, use_cache=False, _name_or_path="x", transformers_version="4.0"))(
        models / "b"
    )
    change_config(lambda c: c.pop("layer_norm_epsilon"))(models / "b")
    run_merge(recipe, models, tmp_path / "out")
    change_config(lambda c: c.update(layer_norm_epsilon=0.1))(models / "b")
    with pytest.raises(Failure, match=r"layer_norm_epsilon is 0\.1, in .* it is 1e-05"):
        run_merge(recipe, models, tmp_path / "out")


def test_della_says_that_it_cannot_rank_one_entry(tmp_path):
    models = make_models(tiny_gpt2, tmp_path / "models")
    for name in ("base", "a", "b", "c"):
        change_state(lambda s: s.update({"score.bias": torch.ones(1)}))(models / name)
    with pytest.raises(Failure, match=r"score\.bias: della ranks .*found shape \(1,\)"):
        run_merge(recipe_of({"method": "della", "density": 0.5}), models, tmp_path / "out")


def test_counts_that_differ_are_refused(tmp_path):
    models = make_models(tiny_gpt2, tmp_path / "models")
    for i, name in enumerate(("base", "a", "b", "c")):
        change_state(lambda s, i=i: s.update({"steps": torch.tensor([max(0, i - 2)])}))(models / name)
    two = recipe_of({"method": "linear", "members": ["a", "b"]})
    folders = {n: models / n for n in ("base", "a", "b", "c")}
    assert dict(Merge(two, folders, models / "base").tensors())["steps"] == torch.tensor([0])
    with pytest.raises(Failure, match=r"steps: integers cannot be merged \(found different values in a, b, c"):
        run_merge(recipe_of({"method": "linear"}), models, tmp_path / "out")


# ── Interruptions and concurrent merges ──

# Merge in children that die at their n-th file operation, for all n; print the number of operations.
DYING = """
import argparse, json, os, signal, sys
sys.path.insert(0, {scripts!r})
import merge
from mllm.core import node_cache
from mllm.merging import merge as merging, recipe_file  # what the children need is imported once
from pathlib import Path
recipe, models, output = json.loads({recipe!r}), Path({models!r}), Path({output!r})
merge.main(argparse.Namespace(recipe=recipe, models=models, base="base", gpus=0, kept=None, output=output / "whole"))
left = 0
def dies(event, arguments):
    global left
    if event in ("open", "os.mkdir", "os.rename", "shutil.copyfile", "os.remove", "os.listdir"):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
for n in range(1, 10_000):
    child = os.fork()
    if child == 0:
        left = n
        sys.addaudithook(dies)
        merge.main(argparse.Namespace(recipe=recipe, models=models, base="base", gpus=0, kept=None, output=output / str(n)))
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        print(n)
        break
"""


def test_a_kill_at_any_moment_leaves_no_output_or_a_whole_one(gpt2, tmp_path):
    values = {"scripts": str(SCRIPTS), "models": str(gpt2), "output": str(tmp_path)}
    recipe = json.dumps(recipe_of({"method": "ties", "density": 0.5}))
    done = subprocess.run(
        [sys.executable, "-c", DYING.format(recipe=recipe, **values)], capture_output=True, text=True, check=True
    )
    operations = int(done.stdout.split()[-1])
    assert operations > 100  # each tensor of each parent is one opened file
    whole = files_in(tmp_path / "whole")
    model = {name for name in whole if name.startswith("model/")}
    seen = set()
    for n in range(1, operations):
        found = files_in(tmp_path / str(n)) if (tmp_path / str(n)).exists() else {}
        final = {k: v for k, v in found.items() if ".partial-" not in k}
        assert all(whole[name] == content for name, content in final.items()), n
        assert not model & final.keys() or model <= final.keys(), n
        seen.add((bool(final), len(found) > len(final)))
    assert (False, True) in seen  # killed while a file there was half-written


def test_a_full_disk_is_said_in_one_line(gpt2, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", small], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk here: {mounted.stderr.strip()}")
    try:
        recipe = json.dumps(recipe_of({"method": "linear"}))
        printed = run_script(
            "merge", "--recipe", recipe, "--models", gpt2, "--base", "base", "--output", small / "out", ok=False
        )
        lines = printed.splitlines()
        assert len(lines) == 1
        assert "the disk is full" in lines[0]
        assert str(small) in lines[0]
        assert files_in(small) == {}
    finally:
        subprocess.run(["umount", small], check=False)


def test_two_merges_at_once_do_not_disturb_each_other(gpt2, tmp_path):
    recipes = [recipe_of({"method": "dare_ties", "density": 0.5, "seed": s}) for s in (1, 2, 3)]
    running = [
        subprocess.Popen([sys.executable, SCRIPTS / "merge.py", "--recipe", json.dumps(recipe), "--models", gpt2, "--base", "base",
                          "--output", tmp_path / f"together-{i}"])
        for i, recipe in enumerate(recipes)
    ]  # fmt: skip
    assert [process.wait() for process in running] == [0, 0, 0]
    for i, recipe in enumerate(recipes):
        run_merge(recipe, gpt2, tmp_path / f"alone-{i}")
        assert files_in(tmp_path / f"alone-{i}") == files_in(tmp_path / f"together-{i}")


def test_a_sharded_checkpoint_is_read_whole(gpt2, tmp_path):
    state = loading.read_state(gpt2 / "a")
    names = sorted(state)
    halves = {"x-1.safetensors": names[::2], "x-2.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({n: state[n] for n in part}, tmp_path / file)
    weight_map = {n: f for f, part in halves.items() for n in part}
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    again = loading.read_state(tmp_path)
    assert list(again) == names
    assert all(torch.equal(again[n], state[n]) for n in names)
    (tmp_path / "x-2.safetensors").unlink()
    with pytest.raises(Failure, match=r"x-2\.safetensors is missing"):
        loading.read_state(tmp_path)


def test_a_tokenizer_that_a_training_has_used_is_not_loaded_to_be_compared(tmp_path, monkeypatch):
    tokenizer = train_tokenizer(["some words to make a vocabulary of: good bad"] * 3, 300, 16)
    tokenizer.save_pretrained(tmp_path / "new")
    tokenizer(["good", "bad words"], truncation=True, padding=True, max_length=3)
    tokenizer.save_pretrained(tmp_path / "used")
    files = [(tmp_path / name / "tokenizer.json").read_bytes() for name in ("new", "used")]
    assert files[0] != files[1]
    monkeypatch.setattr(compatibility, "load_tokenizer", None)
    compatibility.check_tokenizer(tmp_path / "used", tmp_path / "new")


def test_the_same_tokenizer_in_the_words_of_an_older_library_is_the_same(tmp_path):
    """Accept tokenizer merges as strings and missing later keys, as in published models; refuse another vocabulary."""
    tokenizer = train_tokenizer(["some words to make a vocabulary of: good bad"] * 3, 300, 16)
    for name in ("new", "old", "other"):
        tokenizer.save_pretrained(tmp_path / name)
    written = json.loads((tmp_path / "new/tokenizer.json").read_text())
    old = json.loads(json.dumps(written))
    old["model"]["merges"] = [" ".join(pair) for pair in old["model"]["merges"]]
    for key in ("ignore_merges", "byte_fallback"):
        old["model"].pop(key, None)
    assert old["model"] != written["model"]
    (tmp_path / "old/tokenizer.json").write_text(json.dumps(old))
    compatibility.check_tokenizer(tmp_path / "old", tmp_path / "new")
    old["model"]["vocab"] = {word: len(old["model"]["vocab"]) - 1 - i for word, i in old["model"]["vocab"].items()}
    (tmp_path / "other/tokenizer.json").write_text(json.dumps(old))
    with pytest.raises(Failure, match="another tokenizer"):
        compatibility.check_tokenizer(tmp_path / "other", tmp_path / "new")
