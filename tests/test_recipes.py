import copy
import random

import pytest

from mllm import config, grid
from test_config import DEMO, changed


def merges(*entries):
    return grid.build(config.parse(changed(merges=list(entries)))).merges


THREE = ["pain", "depression", "acne"]


def test_every_list_spans_the_grid():
    found = merges({"method": "ties", "members": THREE, "density": [0.1, 0.2, 0.3], "lambda": [0.5, 1.0], "weight": 1})
    points = {(r.parameters["density"], r.parameters["lambda"]) for r in found.values()}
    assert points == {(d, la) for d in (0.1, 0.2, 0.3) for la in (0.5, 1.0)}


def test_names_depend_on_their_own_point_alone():
    entry = {"method": "ties", "members": THREE, "density": 0.3}
    (alone,) = merges(entry)
    spellings = [
        {**entry, "density": [0.3]},
        {**entry, "density": [0.9, 0.3], "lambda": [0.5, 1]},
        {**entry, "lambda": 1.0, "normalize": True},
        {**entry, "members": ["acne", "pain", "depression"]},
        {**entry, "members": ["*"]},
    ]
    for spelling in spellings:
        assert alone in merges({"method": "linear", "members": THREE}, spelling)


def test_names_differ_when_anything_does():
    entry = {"method": "dare_ties", "members": THREE, "density": 0.5}
    variants = [
        entry,
        {**entry, "density": 0.50001},
        {**entry, "weight": 0.5},
        {**entry, "weight": {"pain": 0.5, "depression": 0.5, "acne": 0.25}},
        {**entry, "weight": {"pain": 0.5, "depression": 0.25, "acne": 0.5}},
        {**entry, "seed": 1},
        {**entry, "rescale": False},
        {**entry, "normalize": True},
        {**entry, "members": ["pain", "acne"]},
        {**entry, "method": "dare_linear"},
    ]
    assert len(merges(*variants)) == len(variants)


def test_a_point_written_twice_runs_once_and_is_counted():
    built = grid.build(
        config.parse(changed(merges=[{"method": "slerp", "members": ["pain", "acne"], "t": [0.5, 0.5]}]))
    )
    assert len(built.merges) == 1
    assert built.duplicates == 1


def test_slerp_keeps_the_order_of_its_end_points():
    a = merges({"method": "slerp", "members": ["pain", "acne"], "t": 0.3})
    b = merges({"method": "slerp", "members": ["acne", "pain"], "t": 0.3})
    assert a.keys() != b.keys()
    assert next(iter(a.values())).members == ("pain", "acne")


def test_random_methods_always_have_a_seed():
    (recipe,) = merges({"method": "dare_linear", "members": THREE, "density": 0.5}).values()
    assert recipe.parameters["seed"] == DEMO["seed"]
    (recipe,) = merges({"method": "linear", "members": THREE}).values()
    assert "seed" not in recipe.parameters
    assert recipe.base is None


def test_names_are_safe_and_short():
    raw = copy.deepcopy(DEMO)
    for name in grid.build(config.parse(raw)).candidates:
        assert len(name) < 120
        assert name.replace("-", "").replace("_", "").replace(".", "").isalnum()


def test_parts_make_numbered_experts():
    raw = changed(
        experts=[{"name": "shard", "parts": 12}], merges=[{"method": "linear", "members": ["shard-*"]}], blends=[]
    )
    built = grid.build(config.parse(raw))
    assert [c.name for c in built.of_kind("expert")] == [f"shard-{i}" for i in range(12)]
    assert built.training["shard-3"]["part"] == {"shard": 3, "of": 12, "seed": 17}
    assert built.training["shard-3"]["epochs"] == 1.0
    (recipe,) = built.merges.values()
    assert set(recipe.members) == {f"shard-{i}" for i in range(12)}


def test_references_start_from_their_own_model():
    raw = changed()
    raw["models"].append({**raw["models"][0], "name": "wide", "width": 128})
    raw["references"] = [{"name": "wide-on-all", "model": "wide"}, {"name": "tiny-on-all", "model": "tiny-gpt2"}]
    built = grid.build(config.parse(raw))
    assert built.training["wide-on-all"]["start"] == "wide.base"
    assert built.training["tiny-on-all"]["start"] == "base"
    assert built.starts == {"base": "tiny-gpt2", "wide.base": "wide"}


@pytest.mark.parametrize("seed", range(3))
def test_order_of_entries_changes_no_name(seed):
    entries = copy.deepcopy(DEMO["merges"])
    before = set(merges(*entries))
    random.Random(seed).shuffle(entries)
    assert set(merges(*entries)) == before
