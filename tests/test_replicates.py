"""Replicates: which runs there are, their names, members and seeds; nothing of the first one changes."""

import copy

import pytest

from mllm.experiment import grid, load, replicates
from mllm.experiment.yaml_files import ExperimentError
from test_config import DEMO

MERGES = [
    {"method": "linear", "members": ["pain", "acne"], "weight": {"pain": 1.0, "acne": 2.0}},
    {"method": "slerp", "members": ["pain", "acne"], "t": 0.3},
    {"method": "dare_ties", "members": ["pain", "acne"], "density": 0.9, "seed": [0, 1]},
    {"method": "ties", "members": ["pain", "acne"], "density": 0.5},
]


def built(**changes):
    raw = copy.deepcopy(DEMO)
    raw["merges"] = MERGES
    raw["blends"] = [{"name": "vote", "method": "soft_vote", "members": ["pain", "acne"]}, {"name": "over", "method": "soft_vote", "members": ["linear-*", "tfidf"]}]  # fmt: skip
    for key, value in changes.items():
        entries = {e["name"]: e for e in raw["experts"] + raw["references"]}
        if key in entries:
            entries[key].update(value)
        else:
            raw[key] = value
    return grid.build(load.parse(raw)).candidates


def named(candidates, start):
    return next(name for name in candidates if name.startswith(start) and "@" not in name)


def test_the_first_replicate_is_what_an_experiment_without_has():
    plain, three = built(), built(replicates=3)
    again = {name: run for name, run in three.items() if run.replicate == 1}
    for name, run in plain.items():
        other = again[name]
        assert (run.label(), run.hyper, run.part, run.recipe) == (other.label(), other.hyper, other.part, other.recipe)
    assert list(plain) == list(three)[: len(plain)] == list(again)


def test_every_training_merge_and_blend_is_there_once_per_replicate():
    runs = built(replicates=3)
    once = {name for name, run in built().items() if run.made_by in ("prepare_base", "fit_baseline")}
    assert len(runs) == 3 * (len(built()) - len(once)) + len(once)
    third = runs["pain@3"]
    assert (third.candidate, third.replicate, third.part) == ("pain", 3, runs["pain"].part)
    seeds = [runs[name].hyper["seed"] for name in ("pain", "pain@2", "pain@3")]
    assert len(set(seeds)) == 3
    merged = runs[f"{named(runs, 'ties')}@2"]
    assert merged.members == ("acne@2", "pain@2") and merged.recipe.base == "base-sentiment"
    assert merged.candidate == named(runs, "ties") and merged.folder == f"merges/{merged.name}/model"
    assert runs["over@2"].members == (f"{named(runs, 'linear')}@2", "tfidf")


def test_members_keep_their_order_and_their_weights():
    runs = built(replicates=2)
    linear = runs[f"{named(runs, 'linear')}@2"].recipe
    assert linear.parameters["weight"] == {"pain@2": 1.0, "acne@2": 2.0} and linear.members == ("acne@2", "pain@2")
    slerp = runs[f"{named(runs, 'slerp')}@2"].recipe
    assert slerp.members == ("pain@2", "acne@2") and slerp.base == "pain@2"


def test_seeds_of_a_random_merge_are_runs_of_one_candidate_nested_in_replicates():
    runs = {name: run for name, run in built(replicates=2).items() if run.method == "dare_ties"}
    assert len(runs) == 4 and {run.candidate for run in runs.values()} == {named(runs, "dare_ties-density0.9-seed0")}
    seeds = [(run.replicate, run.recipe.parameters["seed"]) for run in runs.values()]
    assert seeds == [(1, 0), (1, 1), (2, replicates.STEP), (2, replicates.STEP + 1)]


def test_replicates_of_single_entries():
    runs = built(pain={"replicates": 3})
    assert {name for name in runs if "@" in name} >= {"pain@2", "pain@3"} and "acne@2" not in runs
    three = runs[f"{named(runs, 'linear')}@3"]
    assert three.members == ("acne", "pain@3")  # what exists once takes part in all runs
    fewer = built(replicates=3, acne={"replicates": 2})
    assert f"{named(fewer, 'linear')}@2" in fewer and f"{named(fewer, 'linear')}@3" not in fewer


def test_replicates_are_of_trainings():
    for bad in (0, -1, 1.5, True):
        with pytest.raises(ExperimentError, match="replicates"):
            built(replicates=bad)
    with pytest.raises(ExperimentError, match=r"references\[\d\].replicates"):
        built(tfidf={"replicates": 2})
