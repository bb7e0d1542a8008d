"""Compare merges over several tasks with mergekit's merges of the same models without heads, bit for bit."""

import argparse
import json
import shutil

import pytest
import torch
import yaml
from mergekit.scripts.run_yaml import main as mergekit_yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

import merge
import merge_tasks
from mllm.core.errors import Failure
from mllm.models import cards, checkpoint_files, loading
from task_models import CLASSES, PARTS, make_task_models, parts_of, task_recipe
from test_merging import IDS, RECIPES
from tiny_models import recipe_of, tiny_bert, tiny_gpt2, tiny_llama, tiny_t5, tiny_t5_classifier

CLASSIFIERS = {"gpt2": tiny_gpt2, "bert": tiny_bert, "t5": tiny_t5_classifier}
SEVERAL = [(values, name) for values, name in zip(RECIPES, IDS, strict=True) if values["method"] != "passthrough"]
SOME = {"task_arithmetic-14", "ties-16", "dare_ties-20", "slerp-4"}
"""Of the architectures but the first; values by depth, random masks, two members among them."""


def make_headless(models, target):
    """Save the models without heads by transformers; mergekit fails on a BertModel: its heads are equal constants."""
    for folder in models.iterdir():
        model = AutoModel.from_pretrained(folder)
        if model.config.model_type == "bert":
            headed = AutoModelForSequenceClassification.from_pretrained(
                folder, num_labels=2, ignore_mismatched_sizes=True
            )
            torch.nn.init.ones_(headed.classifier.weight)
            torch.nn.init.ones_(headed.classifier.bias)
            model = headed
        model.save_pretrained(target / folder.name)
        AutoTokenizer.from_pretrained(folder).save_pretrained(target / folder.name)
    return target


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory):
    """Architecture -> its models of both tasks, and the same without heads."""
    made = {}

    def get(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            models = make_task_models(CLASSIFIERS[name], folder / "models")
            made[name] = models, make_headless(models, folder / "headless")
        return made[name]

    return get


def merged(models, output, recipe, parts=None):
    merge_tasks.main(
        argparse.Namespace(
            recipe=recipe, models=models, tasks=parts or parts_of(recipe), gpus=0, kept=output / "kept", output=output / "ours"
        )
    )  # fmt: skip
    return output / "ours"


def by_mergekit(file, models, instead, output):
    """Run mergekit on a recipe's file, with other model folders."""
    text = file.read_text()
    words = text.splitlines()[0].removeprefix("# ").split("   ")[0].split()
    (output / "mergekit.yaml").write_text(text.replace(str(models), str(instead)))
    mergekit_yaml.main(
        [str(output / "mergekit.yaml"), str(output / "theirs"), "--quiet", *words[4:]], standalone_mode=False
    )
    return {k: v for f in (output / "theirs").glob("*.safetensors") for k, v in load_file(f).items()}


def same_backbone(folder, theirs, own):
    """The project's tensor names have the body's prefix; all others belong to the head."""
    found = loading.read_state(folder)
    body = {name for name in found if name not in own}
    theirs = {name.removeprefix("bert."): t for name, t in theirs.items() if name not in own}
    stripped = {name.split(".", 1)[1]: found[name] for name in body}
    assert stripped.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(stripped[name], tensor), name


@pytest.mark.parametrize(
    ("architecture", "values", "name"),
    [(a, v, n) for a in CLASSIFIERS for v, n in SEVERAL if a == "gpt2" or n in SOME],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_the_backbone_is_mergekits_of_headless_models_and_heads_are_the_tasks_own(
    classifiers, tmp_path, architecture, values, name
):
    models, headless = classifiers(architecture)
    recipe = task_recipe(values)
    ours = merged(models, tmp_path, recipe)
    theirs = by_mergekit(ours / "mergekit.yaml", models, headless, tmp_path)
    prefix = AutoModelForSequenceClassification.from_pretrained(ours / "model/rating").base_model_prefix
    state = {task: loading.read_state(ours / "model" / task) for task in CLASSES}
    own = {n for n in state["rating"] if not n.startswith(f"{prefix}.")}
    assert own
    for task in CLASSES:
        same_backbone(ours / "model" / task, theirs, own)
    expert = loading.read_state(models / "a")
    assert all(torch.equal(state["rating"][n], expert[n]) for n in own)
    of_mood = parts_of(recipe)["mood"]["members"]
    if len(of_mood) == 1:
        expert = loading.read_state(models / of_mood[0])
        assert all(torch.equal(state["mood"][n], expert[n]) for n in own)


@pytest.mark.parametrize("values", [{"method": "linear"}, {"method": "ties", "density": 0.4}, {"method": "task_arithmetic", "weight": {"a": 0.9, "b": 0.5, "c": 0.25}}])  # fmt: skip
def test_a_head_of_several_experts_is_merged_of_theirs_alone(classifiers, tmp_path, values):
    models, _ = classifiers("bert")
    ours = merged(models, tmp_path, task_recipe(values))
    found = loading.read_state(ours / "model/mood")
    shared = {k: v for k, v in values.get("weight", {}).items() if k != "a"}
    within = {
        **recipe_of({**values, "members": ["b", "c"], **({"weight": shared} if shared else {})}),
        "base": "base-mood",
    }
    within["base"] = within["base"] if values["method"] != "linear" else None
    merge.main(
        argparse.Namespace(
            recipe=within, models=models, base="base-mood", gpus=0, kept=None, output=tmp_path / "within"
        )
    )
    expected = loading.read_state(tmp_path / "within/model")
    heads = [n for n in found if n.startswith("classifier.")]
    assert heads and all(torch.equal(found[n], expected[n]) for n in heads)


@pytest.mark.parametrize("architecture", [tiny_llama, tiny_t5])
@pytest.mark.parametrize("values", [{"method": "linear"}, {"method": "dare_ties", "density": 0.6, "seed": 3}])
def test_of_models_that_are_asked_everything_is_merged(tmp_path, architecture, values):
    family = "causal" if architecture is tiny_llama else "text2text"
    models = make_task_models(architecture, tmp_path / "models", family)
    ours = merged(models, tmp_path, task_recipe(values))
    theirs = by_mergekit(ours / "mergekit.yaml", models, models, tmp_path)
    files = [ours / "model" / task / "model.safetensors" for task in CLASSES]
    assert files[0].stat().st_ino == files[1].stat().st_ino
    found = load_file(files[0])
    assert found.keys() == theirs.keys() and all(torch.equal(found[n], theirs[n]) for n in found)
    assert [cards.read(f.parent).task for f in files] == ["mood", "rating"]


def test_one_task_alone_is_the_merge_within_it(classifiers, tmp_path):
    models, _ = classifiers("gpt2")
    recipe = task_recipe({"method": "ties", "members": ["b", "c"], "density": 0.6})
    ours = merged(models, tmp_path, recipe, {"mood": PARTS["mood"]})
    merge.main(
        argparse.Namespace(recipe=recipe, models=models, base="base-mood", gpus=0, kept=None, output=tmp_path / "one")
    )
    found, expected = (loading.read_state(f) for f in (ours / "model/mood", tmp_path / "one/model"))
    assert found.keys() == expected.keys() and all(torch.equal(found[n], expected[n]) for n in expected)


def test_what_is_written_of_it(classifiers, tmp_path):
    models, _ = classifiers("bert")
    recipe = task_recipe({"method": "linear", "out_dtype": "bfloat16"})
    ours = merged(models, tmp_path, recipe)
    whole = json.loads((ours / "merge.json").read_text())
    assert whole["task"] == "mood, rating" and whole["recipe"] == recipe
    assert whole["parents"] == {
        n: checkpoint_files.digest(models / n) for n in ("base-mood", "b", "c", "base-rating", "a")
    }
    for task, names in CLASSES.items():
        folder = ours / "model" / task
        card = cards.read(folder)
        assert (card.task, card.weights) == (task, whole["weights"])
        assert checkpoint_files.label_names(folder) == names
        assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
        assert {t.dtype for t in loading.read_state(folder).values()} == {torch.bfloat16}
    assert "without their heads" in (ours / "mergekit.yaml").read_text().splitlines()[1]
    again = merged(models, tmp_path / "again", recipe)
    assert json.loads((again / "merge.json").read_text())["weights"] == whole["weights"]
    assert yaml.safe_load((ours / "mergekit.yaml").read_text())["merge_method"] == "linear"


def test_tasks_with_other_backbones_are_refused(classifiers, tmp_path):
    models, _ = classifiers("gpt2")
    shutil.copytree(models, tmp_path / "models")
    file = tmp_path / "models/base-rating/model.safetensors"
    state = load_file(file)
    state["transformer.ln_f.bias"] += 1e-6
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(Failure, match=r"base-rating: weights differ from .*base-mood outside the head"):
        merged(tmp_path / "models", tmp_path, task_recipe({"method": "linear"}))


def test_an_expert_of_other_labels_than_its_tasks_is_refused(classifiers, tmp_path):
    models, _ = classifiers("gpt2")
    with pytest.raises(Failure, match=r"id2label has other labels \(found 1, 2, 3, 4; expected negative"):
        merged(models, tmp_path, task_recipe({"method": "linear"}), {"mood": {"base": "base-mood", "members": ["a"]}})
