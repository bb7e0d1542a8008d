"""Test one model of several tasks on disk: plain transformers reads each folder; shared weights are stored once."""

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from mllm.core.errors import Failure
from mllm.models import checkpoint_files, loading, task_folders
from mllm.models.heads import label_config
from mllm.models.scratch import train_tokenizer
from tiny_models import CARD, tiny_bert, tiny_gpt2, tiny_llama, tiny_t5_classifier

CLASSES = {"rating": ["1", "2", "3", "4"], "sentiment": ["bad", "good"]}


def donors(architecture, folder):
    """Make a base for each task: other heads on one body."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["some words to make a vocabulary of"] * 3, 300, 16)
    body = architecture()
    for task, names in CLASSES.items():
        config = type(body.config).from_dict({**body.config.to_dict(), **label_config(names)})
        model = type(body)(config)
        getattr(model, model.base_model_prefix).load_state_dict(getattr(body, body.base_model_prefix).state_dict())
        checkpoint_files.save(model, tokenizer, folder / task, CARD)
    return {task: folder / task for task in CLASSES}


@pytest.mark.parametrize("architecture", [tiny_gpt2, tiny_bert, tiny_t5_classifier])
def test_each_folder_of_a_classifier_loads_in_plain_transformers(architecture, tmp_path):
    bases = donors(architecture, tmp_path / "bases")
    states = {task: loading.read_state(folder) for task, folder in bases.items()}
    own = task_folders.head_names(architecture())
    assert own and all(own < states[task].keys() for task in CLASSES)
    heads = {task: {n: t + 1 for n, t in state.items() if n in own} for task, state in states.items()}
    shared = {n: t + 1 for n, t in states["rating"].items() if n not in own}
    task_folders.write_task_folders(shared, heads, bases, tmp_path / "joint")
    for task, names in CLASSES.items():
        folder = tmp_path / "joint" / task
        model = AutoModelForSequenceClassification.from_pretrained(folder)
        found = loading.read_state(folder)
        assert (
            all(torch.equal(found[n], t + 1) for n, t in states[task].items()) and found.keys() == states[task].keys()
        )
        assert all(torch.equal(model.state_dict()[n], t) for n, t in found.items())
        assert list(model.config.id2label.values()) == names and AutoTokenizer.from_pretrained(folder)("some")
        assert not (folder / "model.json").exists()  # it would be another model's
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        assert index["metadata"]["total_size"] == sum(4 * t.numel() for t in found.values())
    one, two = ((tmp_path / "joint" / t / "model-00001-of-00002.safetensors").stat() for t in CLASSES)
    assert one.st_ino == two.st_ino and one.st_nlink == 2


def test_a_model_without_heads_is_one_file_under_all_names(tmp_path):
    model, tokenizer = tiny_llama(), train_tokenizer(["some words"] * 3, 300, 16)
    checkpoint_files.save(model, tokenizer, tmp_path / "base", CARD)
    bases = dict.fromkeys(CLASSES, tmp_path / "base")
    task_folders.write_task_folders(
        loading.read_state(tmp_path / "base"), {task: {} for task in CLASSES}, bases, tmp_path / "joint"
    )
    files = [tmp_path / "joint" / task / "model.safetensors" for task in CLASSES]
    assert len({f.stat().st_ino for f in files}) == 1 and not list((tmp_path / "joint").glob("*/*.index.json"))
    assert files[0].read_bytes() == (tmp_path / "base/model.safetensors").read_bytes()
    assert AutoModelForCausalLM.from_pretrained(files[1].parent).num_parameters() == model.num_parameters()


def test_tensors_that_are_not_the_donors_are_refused(tmp_path):
    bases = donors(tiny_gpt2, tmp_path / "bases")
    state = loading.read_state(bases["rating"])
    own = task_folders.head_names(tiny_gpt2())
    shared, head = {n: t for n, t in state.items() if n not in own}, {n: state[n] for n in own}
    with pytest.raises(Failure, match=r"sentiment: tensor score.weight: found \(4, 32\), expected \(2, 32\)"):
        task_folders.write_task_folders(shared, {"rating": head, "sentiment": head}, bases, tmp_path / "joint")
    del shared["transformer.ln_f.bias"]
    with pytest.raises(Failure, match=r"tensor transformer\.ln_f\.bias: found none"):
        task_folders.write_task_folders(shared, {"rating": head}, bases, tmp_path / "other")


def test_a_copy_takes_no_room_and_a_disk_without_links_has_copies(tmp_path, monkeypatch):
    bases = donors(tiny_bert, tmp_path / "bases")
    task_folders.copy_linked(tmp_path / "bases", tmp_path / "again")
    files = ["rating/model.safetensors", "rating/config.json"]
    same = [(tmp_path / "again" / f).stat().st_ino == (tmp_path / "bases" / f).stat().st_ino for f in files]
    assert same == [True, False] and bases.keys() == {f.name for f in (tmp_path / "again").iterdir()}
    shutil.rmtree(tmp_path / "again")

    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)
    task_folders.copy_linked(tmp_path / "bases", tmp_path / "again")
    assert (tmp_path / "again" / files[0]).read_bytes() == (tmp_path / "bases" / files[0]).read_bytes()
