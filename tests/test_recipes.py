import copy
import random
import re

import pytest
import yaml

from conftest import ROOT
from mllm.experiment import grid, load, merge_entries
from mllm.experiment.yaml_files import ExperimentError
from test_config import DEMO, changed


def merges(*entries):
    return grid.build(load.parse(changed(merges=list(entries)))).merges


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
    built = grid.build(load.parse(changed(merges=[{"method": "slerp", "members": ["pain", "acne"], "t": [0.5, 0.5]}])))
    assert len(built.merges) == 1
    (twice,) = built.duplicates
    assert twice.name == twice.same_as and twice.why == "written twice"


TWO = ["acne", "pain"]
SAME = [
    ({"method": "slerp", "members": ["pain", "acne"], "t": 0}, "pain", "t = 0"),
    ({"method": "slerp", "members": ["pain", "acne"], "t": 1.0}, "acne", "t = 1"),
    ({"method": "nearswap", "members": ["pain", "acne"], "t": 0}, "pain", "t = 0"),
    ({"method": "passthrough", "members": ["pain"]}, "pain", "passed through"),
    ({"method": "linear", "members": TWO, "weight": {"pain": 2, "acne": 0}}, "pain", "all weight on one member"),
    ({"method": "nuslerp", "members": TWO, "weight": {"pain": 0, "acne": 3}}, "acne", "all weight on one member"),
    ({"method": "task_arithmetic", "members": TWO, "lambda": 0}, "base-sentiment", "lambda = 0"),
    ({"method": "della_linear", "members": TWO, "density": 0.5, "weight": 0}, "base-sentiment", "weight = 0"),
    ({"method": "ties", "members": TWO, "density": 0.5, "weight": 0.2},
     {"method": "ties", "members": TWO, "density": 0.5}, "factor"),
    ({"method": "ties", "members": TWO, "density": 0.5, "weight": {"pain": 1, "acne": 2}},
     {"method": "ties", "members": TWO, "density": 0.5, "weight": {"pain": 0.5, "acne": 1}}, "factor"),
    ({"method": "dare_linear", "members": TWO, "density": 1.0, "seed": 5},
     {"method": "task_arithmetic", "members": TWO}, "density = 1"),
    ({"method": "dare_ties", "members": TWO, "density": 1.0, "rescale": False},
     {"method": "ties", "members": TWO, "density": 1.0, "normalize": False}, "density = 1"),
    ({"method": "dare_linear", "convention": "paper", "members": TWO, "density": 1.0},
     {"method": "dare_linear", "members": TWO, "density": 1.0}, "density = 1"),
    ({"method": "breadcrumbs", "members": TWO, "density": 1.0, "gamma": 0, "lambda": 0.5},
     {"method": "task_arithmetic", "members": TWO, "weight": 0.5}, "density = 1"),
    ({"method": "task_arithmetic", "members": TWO, "weight": 3, "normalize": True},
     {"method": "task_arithmetic", "members": TWO, "weight": 0.5}, "factor"),
    ({"method": "task_arithmetic", "members": ["pain", "acne", "depression"],
      "weight": {"pain": 1, "acne": 1, "depression": 0}}, {"method": "task_arithmetic", "members": TWO}, "left out"),
    ({"method": "linear", "members": TWO, "weight": 7}, {"method": "linear", "members": TWO}, "factor"),
    ({"method": "slerp", "members": ["pain", "acne"], "t": 0.25},
     {"method": "slerp", "members": ["acne", "pain"], "t": 0.75}, "members swapped"),
    ({"method": "nuslerp", "members": TWO, "nuslerp_row_wise": True}, {"method": "nuslerp", "members": TWO}, ""),
]  # fmt: skip
NOT_THE_SAME = [
    ({"method": "ties", "members": TWO, "density": 0.5, "normalize": False},
     {"method": "ties", "members": TWO, "density": 0.5, "normalize": False, "weight": 0.2}),
    ({"method": "dare_linear", "members": TWO, "density": 0.5, "seed": 1},
     {"method": "dare_linear", "members": TWO, "density": 0.5, "seed": 2}),
    ({"method": "ties", "members": TWO, "density": 1.0},
     {"method": "ties", "members": TWO, "density": 1.0, "convention": "paper"}),
    ({"method": "slerp", "members": ["pain", "acne"], "t": 0.25}, {"method": "slerp", "members": TWO, "t": 0.25}),
    ({"method": "linear", "members": TWO}, {"method": "linear", "members": TWO, "out_dtype": "bfloat16"}),
    ({"method": "linear", "members": TWO, "normalize": False}, {"method": "linear", "members": TWO}),
    ({"method": "task_arithmetic", "members": TWO, "weight": {"pain": 1, "acne": -0.5}, "normalize": True},
     {"method": "task_arithmetic", "members": TWO, "weight": {"pain": 1, "acne": -0.5}}),
    ({"method": "ties", "members": TWO, "density": 0.5, "lambda": -0.5, "normalize": False},
     {"method": "ties", "members": TWO, "density": 0.5, "weight": -0.5, "normalize": False}),
    ({"method": "sce", "members": TWO, "select_topk": {"layers": [0.1, 0.9], "rest": 0.5}},
     {"method": "sce", "members": TWO, "select_topk": {"layers": [0.9, 0.1], "rest": 0.5}}),
]  # fmt: skip


@pytest.mark.parametrize(("entry", "same", "why"), SAME, ids=lambda v: str(v)[:40])
def test_points_that_compute_what_another_computes_are_run_once(entry, same, why):
    first = [same] if isinstance(same, dict) else []
    built = grid.build(load.parse(changed(merges=[*first, entry])))
    assert len(built.merges) == len(first)
    (duplicate,) = built.duplicates
    assert duplicate.same_as == (next(iter(built.merges)) if first else same)
    assert why in duplicate.why
    # Either way round.
    if first:
        assert len(grid.build(load.parse(changed(merges=[entry, *first]))).merges) == 1


@pytest.mark.parametrize(("one", "other"), NOT_THE_SAME, ids=lambda v: str(v)[:40])
def test_points_that_compute_something_else_are_all_run(one, other):
    assert len(merges(one, other)) == 2


def test_the_half_precision_copy_of_an_expert_is_not_the_expert():
    (only,) = merges({"method": "slerp", "members": TWO, "t": 0, "out_dtype": "bfloat16"}).values()
    assert only.parameters["out_dtype"] == "bfloat16"


def test_values_that_do_not_vary_are_one_number():
    spellings = [0.5, {"pain": 0.5, "acne": 0.5}, {"layers": [0.5, 0.5, 0.5], "rest": 0.5},
                 {"pain": {"layers": [0.5, 0.5], "rest": 0.5}, "acne": 0.5}]  # fmt: skip
    assert len({*merges(*({"method": "ties", "members": TWO, "density": d} for d in spellings))}) == 1


def test_the_papers_conventions_are_methods_of_their_own():
    found = merges({"method": "ties", "members": TWO, "density": 0.5, "convention": ["mergekit", "paper"]})
    assert [r.method for r in found.values()] == ["ties", "ties_paper"]
    assert all(name.startswith(r.method) for name, r in found.items())


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
    for name in grid.build(load.parse(raw)).candidates:
        assert len(name) < 120
        assert name.replace("-", "").replace("_", "").replace(".", "").isalnum()


def test_parts_make_numbered_experts():
    raw = changed(
        experts=[{"name": "shard", "parts": 12}], merges=[{"method": "linear", "members": ["shard-*"]}], blends=[]
    )
    built = grid.build(load.parse(raw))
    assert [c.name for c in built.of_kind("expert")] == [f"shard-{i}" for i in range(12)]
    assert built.candidates["shard-3"].part == {"shard": 3, "of": 12, "seed": 17}
    assert built.candidates["shard-3"].hyper["epochs"] == 1.0
    (recipe,) = built.merges.values()
    assert set(recipe.members) == {f"shard-{i}" for i in range(12)}


def test_references_start_from_their_own_model():
    raw = changed()
    raw["models"].append({**raw["models"][0], "name": "wide", "width": 128})
    raw["references"] = [{"name": "wide-on-all", "model": "wide"}, {"name": "tiny-on-all", "model": "tiny-gpt2"}]
    built = grid.build(load.parse(raw))
    assert built.candidates["wide-on-all"].start.name == "wide-sentiment.base"
    assert built.candidates["tiny-on-all"].start.name == "base-sentiment"
    starts = {name: start.model.name for name, start in built.starts.items()}
    assert starts == {"base-sentiment": "tiny-gpt2", "wide-sentiment.base": "wide"}


def test_blends_may_have_merges_as_members():
    entry = {"name": "all", "method": "greedy", "members": ["pain", "ties-*"]}
    built = grid.build(load.parse(changed(blends=[entry])))
    assert {built.candidates[m].method for m in built.candidates["all"].members} == {"", "ties"}
    with pytest.raises(ExperimentError, match=r"blends\[0\].members: 'ties-nothing\*' matches no candidate"):
        grid.build(load.parse(changed(blends=[{**entry, "members": ["ties-nothing*"]}])))


@pytest.mark.parametrize("seed", range(3))
def test_order_of_entries_changes_no_name(seed):
    entries = copy.deepcopy(DEMO["merges"])
    before = set(merges(*entries))
    random.Random(seed).shuffle(entries)
    assert set(merges(*entries)) == before


# ── The documentation says the same ──


def test_the_table_of_methods_is_the_models():
    text = (ROOT / "docs/merging.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| (\w+) \| ([^|]+) \|", text, re.M)
    rows = [row for row in rows if row[0] != "method"]
    assert [name for name, *_ in rows] == list(dict.fromkeys(name for name, *_ in rows))
    assert {name for name, *_ in rows} == set(merge_entries.METHODS)
    for name, members, base, parameters in rows:
        entry = merge_entries.METHODS[name]
        fewest, most = entry.count
        assert members == (str(most) if most else f"≥ {fewest}"), name
        assert base == {"needed": "yes", "refused": "no"}.get(entry.base, entry.base), name
        written = {}
        for part in parameters.replace("*", "").split(", "):
            key, _, default = part.strip().partition(" ")
            written[key] = yaml.safe_load(default.strip("()")) if default else None
        fields = {
            n.rstrip("_"): f for n, f in entry.model_fields.items() if n not in ("method", "members", "out_dtype")
        }
        assert written.keys() == fields.keys(), name
        for key, field in fields.items():
            if key not in ("seed", "convention"):
                default = None if field.is_required() else field.default[0]
                assert (float(written[key]) if type(default) is float else written[key]) == default, (name, key)


def test_its_examples_are_good():
    (block,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/merging.md").read_text(), re.S)
    found = merges(*(m for m in yaml.safe_load(block)["merges"] if m["method"] != "moe"))
    assert len(found) == 2 + 1 + 1 + 2 + 10
