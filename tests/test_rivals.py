"""Test strong rivals: the router of experts by slice, and one model trained on all reviews that the experts saw."""

import copy

import numpy as np
import polars as pl
import pytest

from mllm.data import splitting
from mllm.experiment import grid, load
from mllm.experiment.yaml_files import ExperimentError
from mllm.prediction import routing
from test_config import DEMO


def built(**more):
    return grid.build(load.parse({**copy.deepcopy(DEMO), **more})).candidates


def sliced(*conditions, **more):
    return [{"name": c.lower(), "where": {"condition": [c]}, "epochs": 1, **more} for c in conditions]


# ── The router ──


def test_experts_by_slice_have_a_router_that_nobody_asked_for():
    task = DEMO["tasks"][0]["name"]
    one, two = (built(experts=sliced(*names), merges=[], blends=[]) for names in (["Pain"], ["Pain", "Acne"]))
    assert f"router-{task}" not in one
    router = two[f"router-{task}"]
    assert (router.kind, router.method, router.members, router.made_by) == (
        "reference",
        "router",
        ("acne", "pain"),
        "blend",
    )
    shards = [{"name": "shard", "parts": 3, "epochs": 1}]
    assert not any(c.method == "router" for c in built(experts=shards, merges=[], blends=[]).values())
    again = built(experts=sliced("Pain", "Acne", replicates=2), merges=[], blends=[])
    assert again[f"router-{task}@2"].members == ("acne@2", "pain@2")


def test_its_name_is_taken():
    raw = {**copy.deepcopy(DEMO), "experts": sliced("Pain", "Acne"), "merges": [], "blends": []}
    raw["references"] = [{"name": f"router-{DEMO['tasks'][0]['name']}", "model": "tfidf"}]
    with pytest.raises(ExperimentError, match="the router of a task has that name"):
        load.parse(raw)


def test_each_review_goes_to_its_own_expert():
    rows = pl.DataFrame({"condition": ["Pain", "Acne", None, "Flu", "Pain"], "year": [2010, 2011, 2010, 2011, 2012]})
    where = {"p": {"condition": ["Pain"]}, "a": {"condition": ["Acne", "Pain"], "year": [2010, 2011]}}
    mine = routing.slices(rows, where)
    assert mine.tolist() == [[True, False, False, False, True], [True, True, False, False, False]]
    p = np.random.default_rng(0).dirichlet(np.ones(3), (2, 5))
    found = routing.route(["p", "a"], np.log(p), mine)
    expected = [p[:, 0].mean(0), p[1, 1], p[:, 2].mean(0), p[:, 3].mean(0), p[0, 4]]
    assert np.exp(found.logp) == pytest.approx(np.array(expected))
    assert found.share == pytest.approx([4 / 5, 4 / 5])  # reviews of no slice are read by all
    assert found.facts == {"reviews": {"p": 2, "a": 2}, "of_none": 2}


# ── Trained on all that the experts saw ──


def test_a_joint_reference_sees_what_the_experts_see():
    rng = np.random.default_rng(1)
    train = pl.DataFrame({
        "review_id": np.arange(300), "group": rng.integers(0, 250, 300), "label_t": rng.integers(0, 3, 300),
        "condition": rng.choice(["Pain", "Acne", "Flu"], 300),
    })  # fmt: skip
    parts = [
        {"where": {"condition": ["Pain"]}, "cap": 10, "seed": 3},
        {"where": {"condition": ["Acne", "Pain"]}},
        {"shard": 1, "of": 4, "seed": 3},
    ]
    each = [set(splitting.select_part(train, part, "t")["review_id"]) for part in parts]
    joint = splitting.select_part(train, {"union": parts}, "t")
    assert set(joint["review_id"]) == set.union(*each) and joint["review_id"].is_unique().all()
    assert joint["review_id"].is_sorted()


def test_references_by_what_they_are_trained_on():
    experts = sliced("Pain", "Acne", cap=50)
    references = [
        {"name": "together", "model": DEMO["base"], "train": "joint"},
        {"name": "probe", "model": DEMO["base"], "train": "probe"},
    ]
    found = built(experts=experts, merges=[], blends=[], references=references)
    assert found["together"].part == {"union": [found["acne"].part, found["pain"].part]}
    turned = built(experts=experts[::-1], merges=[], blends=[], references=references)
    assert turned["together"].part == found["together"].part, "the order of the file trained it again"
    assert (found["together"].method, found["together"].made_by) == ("joint", "train_expert")
    assert (found["probe"].method, found["probe"].made_by) == ("linear_probe", "fit_probe")
