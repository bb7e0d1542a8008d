"""Test models over several tasks in the experiment file: accepted, expanded, and refused with one message each."""

import copy

import pytest
import yaml

from mllm.experiment import grid, load
from mllm.experiment.yaml_files import ExperimentError

RAW = {
    "name": "three",
    "data": {"source": "synthetic"},
    "tasks": [
        {"name": "rating", "label": "rating"},
        {"name": "mood", "label": "sentiment"},
        {"name": "topic", "label": "condition", "top": 3},
    ],
    "models": [
        {"name": "tiny", "source": "scratch"},
        {"name": "asked", "source": "scratch", "architecture": "t5", "family": "text2text"},
    ],
    "base": "tiny",
    "experts": [
        {"name": "rating", "task": "rating"},
        {"name": "m", "task": "mood", "parts": 2},
        {"name": "t", "task": "topic"},
    ],
    "merges": [{"method": "ties", "density": 0.5, "members": ["*"]}],
}


def raw_with(**values):
    return copy.deepcopy(RAW | values)


def built(**values):
    return grid.build(load.parse(raw_with(**values)))


def test_one_merge_has_a_candidate_for_each_task():
    found = built()
    ((name, recipe),) = found.merges.items()
    assert recipe.members == ("m-0", "m-1", "rating", "t") and recipe.base == "base-mood"
    parts = found.wholes[name]
    assert list(parts) == ["mood", "rating", "topic"]
    for task, part in parts.items():
        assert (part.name, part.kind, part.task) == (f"{name}.{task}", "merge", task)
        assert (part.whole, part.covers, part.recipe) == (name, ("mood", "rating", "topic"), recipe)
        assert part.folder == f"merges/{name}/model/{task}" and part.start.name == f"base-{task}"
        assert found.candidates[part.name] is part


def test_a_map_takes_the_experts_of_its_tasks_alone():
    whole, grouped = ["rating", "m-*"], {"mood": ["*"], "rating": ["*"]}
    names = {tuple(built(merges=[{"method": "linear", "members": m}]).merges) for m in (whole, grouped)}
    assert len(names) == 1
    (within,) = built(merges=[{"method": "linear", "members": {"mood": ["*"]}}]).merges.values()
    assert within.members == ("m-0", "m-1") and within.base is None


def test_merges_within_a_task_keep_their_names():
    merges = [
        {"method": "ties", "density": [0.2, 0.5], "members": ["m-*"]},
        {"method": "linear", "members": ["m-*"], "weight": {"m-0": 1, "m-1": 2}},
        {"method": "dare_linear", "members": ["m-*"], "density": 0.5, "seed": [1, 2]},
    ]
    found = built(merges=merges)
    assert list(found.merges) == [
        "ties-density0.2-ee713405d4",
        "ties-density0.5-587cc162bc",
        "linear-weight_per_member-57e9f2b5ad",
        "dare_linear-density0.5-seed1-4893700f47",
        "dare_linear-density0.5-seed2-d079340864",
    ]
    assert not found.wholes and all(found.candidates[name].folder == f"merges/{name}/model" for name in found.merges)


def test_a_task_among_weights_stands_for_its_members():
    by_task = {"method": "linear", "members": ["*"], "weight": {"rating": 0.5, "mood": 1, "topic": 2}}
    by_member = {**by_task, "weight": {"rating": 0.5, "m-0": 1, "m-1": 1, "t": 2}}
    mixed = {**by_task, "weight": {"rating": 0.5, "mood": 1, "t": 2}}
    assert len({tuple(built(merges=[m]).merges) for m in (by_task, by_member, mixed)}) == 1
    (recipe,) = built(merges=[by_task]).merges.values()
    assert recipe.parameters["weight"] == {"m-0": 1.0, "m-1": 1.0, "rating": 0.5, "t": 2.0}


def test_runs_of_random_merges_and_replicates_of_a_whole():
    found = built(
        replicates=2,
        merges=[{"method": "dare_linear", "density": 0.5, "lambda": 0.5, "seed": [1, 2], "members": ["*"]}],
    )
    first, second, again, more = found.merges
    assert (again, more) == (f"{first}@2", f"{second}@2")
    assert found.runs[f"{first}.mood"] == [f"{name}.mood" + end for end in ("", "@2") for name in (first, second)]
    part = found.candidates[f"{first}.mood@2"]
    assert part.whole == f"{first}@2" and part.folder == f"merges/{first}@2/model/mood"
    assert part.members == ("m-0@2", "m-1@2", "rating@2", "t@2") == found.merges[again].members


def test_points_of_several_tasks_are_no_copies_of_an_input():
    weight = {"rating": 1, "mood": 0, "topic": 0}
    found = built(merges=[{"method": "task_arithmetic", "members": ["*"], "weight": [weight], "lambda": [0, 1]}])
    assert len(found.merges) == 2 and not found.duplicates
    factor = [{"rating": 1, "mood": 1, "topic": 2}, {"rating": 2, "mood": 2, "topic": 4}]
    found = built(merges=[{"method": "linear", "members": ["*"], "weight": factor}])
    assert len(found.merges) == len(found.duplicates) == 1


def test_a_sum_over_tasks_is_tried_with_several_factors():
    def lambdas(**values):
        found = built(merges=[{"members": ["*"], **values}]).merges.values()
        return [recipe.parameters["lambda"] for recipe in found]

    assert lambdas(method="task_arithmetic") == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert len(lambdas(method="breadcrumbs", density=[0.5, 0.8])) == 20
    for said in ({"weight": 0.4}, {"lambda": 0.4}, {"normalize": True}, {"members": ["m-*"]}):
        assert len(lambdas(method="task_arithmetic", **said)) == 1
    assert lambdas(method="ties", density=0.2) == [1.0]


def test_experts_that_are_asked_answer_in_the_other_tasks():
    found = built(base="asked")
    assert [c.name for c in found.of_kind("expert") if c.made_by == "predict"] == [
        "rating.mood", "rating.topic", "m-0.rating", "m-0.topic", "m-1.rating", "m-1.topic", "t.mood", "t.rating",
    ]  # fmt: skip
    elsewhere = found.candidates["t.mood"]
    assert elsewhere.folder == "models/t" and elsewhere.start.name == "base-mood" and elsewhere.task == "mood"
    assert set(found.wholes["t"]) == {"mood", "rating", "topic"} and found.wholes["t"]["topic"].name == "t"
    assert not [c for c in built().of_kind("expert") if c.whole]
    within = built(base="asked", merges=[{"method": "linear", "members": ["m-*"]}])
    assert not [c for c in within.of_kind("expert") if c.whole]
    assert "t.mood@2" in built(base="asked", replicates=2).candidates


def test_a_tasks_prompt_goes_before_the_models():
    raw = raw_with(base="asked")
    raw["models"][1]["prompt"] = {"words": {}, "score": "first_token"}
    raw["tasks"][1]["prompt"] = {"template": "{review} How did it go?", "words": {"positive": "well"}}
    experiment = load.parse(raw)
    found = grid.build(experiment)
    own, other = (found.starts[f"base-{task}"].model.prompt for task in ("mood", "topic"))
    assert (own.template, own.words, own.score) == ("{review} How did it go?", {"positive": "well"}, "first_token")
    assert other == experiment.model("asked").prompt
    text = yaml.safe_dump(experiment.model_dump(by_alias=True, exclude_none=True))
    assert load.parse(yaml.safe_load(text)) == experiment


def test_a_model_trained_on_all_tasks():
    found = built(references=[{"name": "joint", "model": "tiny", "train": "tasks"}])
    assert list(found.wholes["joint"]) == ["mood", "rating", "topic"]
    part = found.candidates["joint.topic"]
    assert (part.kind, part.made_by, part.folder) == ("reference", "train_tasks", "models/joint/topic")
    two = built(references=[{"name": "joint", "model": "tiny", "train": "tasks", "tasks": ["topic", "mood"]}])
    assert list(two.wholes["joint"]) == ["mood", "topic"]


def merged(**values):
    return {"merges": [{"method": "linear", "members": ["*"], **values}]}


BAD = {
    "a task that is none": (merged(members={"ratin": ["*"]}), ["merges[0].members", "task 'ratin'", "did you mean 'rating'"]),
    "a task without an expert": (
        {**merged(members={"mood": ["*"], "topic": ["*"]}), "experts": RAW["experts"][:2]},
        ["merges[0].members.topic", "task topic has no expert"],
    ),
    "another task's expert": (merged(members={"mood": ["m-*"], "topic": ["rating"]}), ["merges[0].members.topic", "'rating' matches none of t"]),
    "no pattern": (merged(members={"mood": [], "topic": ["t"]}), ["merges[0].members.mood", "at least 1"]),
    "no task": (merged(members={}), ["merges[0].members", "no task"]),
    "no list": (merged(members={"mood": "m-0", "topic": ["t"]}), ["merges[0].members.mood", "expected a list"]),
    "a weight of a task that is no member's": (
        merged(members=["m-*"], weight={"mood": 1, "topic": 2}), ["merges[0].weight", "'topic'", "not among the members"],
    ),
    "no weight of a task": (merged(weight={"mood": 1, "topic": 2}), ["merges[0].weight", "gives no weight for rating"]),
    "weights of a head that sum to 0": (
        merged(weight={"mood": 0, "topic": 2, "rating": 1}), ["merges[0].weight", "weights sum to 0"],
    ),
    "a mixture of experts": (
        {"models": [{"name": "tiny", "source": "scratch", "architecture": "llama"}], "merges": [{"method": "moe", "members": ["*"]}]},
        ["merges[0].members", "mood, rating, topic", "mixture of experts"],
    ),
    "a choice by no task": ({"compare": {"tasks": "mod"}}, ["compare.tasks", "'mod'", "did you mean 'mood'"]),
    "a choice by a task that is not covered": (
        {**merged(members=["m-*", "rating"]), "compare": {"tasks": "topic"}},
        ["compare.tasks", "merges[0]", "no expert of it"],
    ),
    "a prompt where nothing is asked": (
        {"models": RAW["models"][:1], "tasks": [*RAW["tasks"][:2], {**RAW["tasks"][2], "prompt": {"chat": True}}]},
        ["tasks[2].prompt", "no model reads it"],
    ),
    "one question for all tasks": (
        {
            "base": "asked",
            "models": [{**RAW["models"][1], "prompt": {"template": "{review} Good?"}}],
            "tasks": [*({**task, "prompt": {"template": "{review} What?"}} for task in RAW["tasks"][:2]), RAW["tasks"][2]],
        },
        ["tasks[2].prompt", "missing", "{task} nor {labels}"],
    ),
    "one question for all tasks of a training": (
        {
            "models": [RAW["models"][0], {**RAW["models"][1], "prompt": {"template": "{review} Good?"}}],
            "tasks": [RAW["tasks"][0], *({**task, "prompt": {"template": "{review} What?"}} for task in RAW["tasks"][1:])],
            "references": [{"name": "joint", "model": "asked", "train": "tasks"}],
        },
        ["tasks[0].prompt", "missing", "reference 'joint' over mood, rating, topic"],
    ),
    "a template without a review": (
        {"tasks": [*RAW["tasks"][:2], {**RAW["tasks"][2], "prompt": {"template": "What?"}}]},
        ["tasks[2].prompt.template", "{review}"],
    ),
    "a joint training's task": (
        {"references": [{"name": "joint", "model": "tiny", "train": "tasks", "tasks": ["mood", "topc"]}]},
        ["references[0].tasks", "'topc'", "did you mean 'topic'"],
    ),
    "a joint training without experts": (
        {"experts": RAW["experts"][:2], "references": [{"name": "joint", "model": "tiny", "train": "tasks", "tasks": ["mood", "topic"]}]},
        ["references[0].tasks", "task topic has no expert"],
    ),
    "tasks of another training": (
        {"references": [{"name": "all", "model": "tiny", "task": "mood", "tasks": ["mood", "topic"]}]},
        ["references[0].tasks", "only with train: tasks"],
    ),
    "one part's name for an expert": (
        {"experts": [*RAW["experts"], {"name": "rating.mood", "task": "mood"}]}, ["'rating.mood'", "reserved for the part of 'rating' in task mood"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_bad_input_has_one_message(what):
    values, pieces = BAD[what]
    with pytest.raises(ExperimentError) as caught:
        load.parse(raw_with(**values))
    (problem,) = caught.value.problems
    assert all(piece in problem for piece in pieces), problem
