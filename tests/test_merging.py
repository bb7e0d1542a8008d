"""Compare merges with the mergekit-yaml command, bit for bit, and with references in double precision."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from mergekit.merge_methods import registry as mergekits
from mergekit.merge_methods.registry import registered_methods
from mergekit.scripts.run_yaml import main as mergekit_yaml
from safetensors.torch import load_file, save_file

import merge
import references
from mllm.core.errors import Failure
from mllm.experiment import merge_entries
from mllm.merging import methods
from mllm.merging.depth import Depth
from mllm.merging.merge import Merge, TensorGroup
from mllm.models import checkpoint_files, loading
from tiny_models import FAMILIES, LABELS, MEMBERS, make_models, recipe_of, tiny_gpt2

UNHURRIED = settings(deadline=None, max_examples=60)


@pytest.fixture(scope="module", params=FAMILIES)
def models(request, tmp_path_factory) -> Path:
    architecture = FAMILIES[request.param]
    return make_models(architecture, tmp_path_factory.mktemp(architecture.__name__))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory) -> Path:
    return make_models(tiny_gpt2, tmp_path_factory.mktemp("gpt2"))


DEPTH = {"layers": [0.9, 0.3, 0.6], "rest": 0.5}
RECIPES = [
    {"method": "linear"},
    {"method": "linear", "weight": {"a": 1.0, "b": 0.5, "c": 0.25}},
    {"method": "linear", "weight": {"a": DEPTH, "b": 0.5, "c": 0.25}, "normalize": False},
    {"method": "slerp", "members": ["b", "a"], "t": 0.3},
    {"method": "slerp", "members": ["b", "a"], "t": DEPTH},
    {"method": "nuslerp", "members": ["a", "b"], "weight": {"a": 0.7, "b": 0.2}},
    {"method": "nuslerp", "members": ["a", "b"], "weight": {"a": 0.7, "b": 0.2}, "use_base": True},
    {"method": "nuslerp", "members": ["a", "b"], "nuslerp_flatten": False, "nuslerp_row_wise": True, "weight": 0.5},
    {"method": "multislerp", "weight": {"a": 0.7, "b": 0.2, "c": 0.4}},
    {"method": "multislerp", "use_base": True},
    {"method": "karcher"},
    {"method": "karcher", "max_iter": 3, "tol": 1e-4},
    {"method": "task_arithmetic", "lambda": 0.5},
    {"method": "task_arithmetic", "weight": {"a": 1.0, "b": -0.5, "c": 0.25}, "normalize": True},
    {"method": "task_arithmetic", "weight": {"a": DEPTH, "b": 0.5, "c": 0.25}, "lambda": DEPTH},
    {"method": "ties", "density": 0.3, "lambda": 0.8},
    {"method": "ties", "density": 0.6, "weight": {"a": 0.7, "b": 0.2, "c": 0.1}, "normalize": False},
    {"method": "ties", "density": {"a": 0.7, "b": DEPTH, "c": 0.2}, "rescale": True},
    {"method": "dare_linear", "density": 0.5, "weight": 0.4, "seed": 3},
    {"method": "dare_linear", "density": 0.9, "rescale": False, "seed": 4},
    {"method": "dare_ties", "density": 0.7, "weight": {"a": 0.5, "b": 0.3, "c": 0.4}, "seed": 5},
    {"method": "dare_ties", "density": DEPTH, "seed": 5},
    {"method": "della", "density": 0.5, "seed": 6},
    {"method": "della_linear", "density": 0.6, "epsilon": 0.3, "weight": 0.3, "seed": 7},
    {"method": "breadcrumbs", "density": 0.6, "weight": 0.4},
    {"method": "breadcrumbs", "density": 0.5, "gamma": 0.2, "weight": {"a": 0.5, "b": 0.3, "c": 0.4}, "rescale": True},
    {"method": "breadcrumbs_ties", "density": 0.4, "gamma": 0.1, "lambda": 0.8},
    {"method": "model_stock"},
    {"method": "model_stock", "filter_wise": True},
    {"method": "sce"},
    {"method": "sce", "select_topk": 0.3},
    {"method": "ram"},
    {"method": "ram", "epsilon": 0.01},
    {"method": "ramplus_tl", "epsilon": 0.01, "r": 0.3},
    {"method": "nearswap", "members": ["b", "a"], "t": 0.01},
    {"method": "arcee_fusion", "members": ["b", "a"], "seed": 1},
    {"method": "passthrough", "members": ["b"], "scale": 0.5},
]
IDS = [f"{r['method']}-{i}" for i, r in enumerate(RECIPES)]


def merged(models: Path, recipe: dict) -> dict[str, torch.Tensor]:
    folders = {n: models / n for n in ("base", *recipe["members"])}
    return dict(Merge(recipe, folders, models / "base").tensors())


def test_every_method_of_mergekits_is_there_with_its_parameters():
    """Fail if an upgrade adds a method or a parameter, or changes a default or a contract."""
    ours = {name for name, entry in merge_entries.METHODS.items() if not entry.in_mergekit}
    registry = {
        name: m.spec for m in registered_methods() if not (name := m.spec.name).endswith("_paper") and name not in ours
    }
    assert registry.keys() == merge_entries.METHODS.keys() - ours
    papers = {f"{name}_paper" for name, entry in merge_entries.METHODS.items() if "convention" in entry.model_fields}
    assert papers | ours - {"moe"} == methods.OURS - registry.keys()
    assert {r["method"] for r in RECIPES} == registry.keys()
    own = {"seed", "use_base", "out_dtype"}
    for name, spec in registry.items():
        entry = merge_entries.METHODS[name]
        offered = {n.rstrip("_"): f for n, f in entry.model_fields.items() if n in entry.axes()}
        assert offered.keys() - own == {p.name for p in spec.parameters} - entry.unused, name
        for parameter in spec.parameters:
            if parameter.name in offered:
                # weight has no default in mergekit; density has none here, since 1 would thin nothing
                field = offered[parameter.name]
                known = parameter.name in ("weight", "density") or (name, parameter.name) == ("passthrough", "scale")
                default = [] if field.is_required() else field.default
                assert known or default == ([] if parameter.required else [parameter.default]), (name, parameter.name)
        contract = spec.contract
        base = {"required": ("needed", "first"), "ignored": ("refused",), "optional": ("optional",)}[
            contract.base.value
        ]
        assert entry.base in base, name
        fewest, most = entry.count
        extra = 1 if entry.base == "needed" else 0
        assert fewest + extra >= contract.min_inputs and fewest >= (contract.min_non_base or 0), name
        limit = contract.max_non_base or contract.max_inputs
        assert most == limit, name


@pytest.mark.parametrize("values", RECIPES, ids=IDS)
def test_mergekit_yaml_makes_the_same_bits(models, tmp_path, values):
    """Return the script's weights, and those of the command on the first line of its mergekit.yaml."""
    compare_with_the_command(models, tmp_path, recipe_of(values), torch.float32)


@pytest.mark.parametrize("method", ["linear", "ties", "dare_ties"])
def test_members_in_half_precision_and_half_precision_out(tmp_path, method):
    """Match mergekit-yaml's dtype: float32 with out_dtype: bfloat16."""
    models = make_models(tiny_gpt2, tmp_path / "models", torch.bfloat16)
    values = {"method": method, "out_dtype": "bfloat16", **({} if method == "linear" else {"density": 0.5})}
    compare_with_the_command(models, tmp_path, recipe_of(values), torch.bfloat16)
    config = json.loads((tmp_path / "ours/model/config.json").read_text())
    assert config["dtype"] == "bfloat16"


def compare_with_the_command(models, tmp_path, recipe, dtype):
    merge.main(
        argparse.Namespace(recipe=recipe, models=models, base="base", gpus=0, kept=None, output=tmp_path / "ours")
    )
    written = (tmp_path / "ours/mergekit.yaml").read_text()
    command = written.splitlines()[0].removeprefix("# ").split("   ")[0].split()
    assert command[:4] == ["OMP_NUM_THREADS=1", "mergekit-yaml", "mergekit.yaml", "OUTPUT"]
    keys = {"merge_method", "models", "base_model", "dtype", "out_dtype", "parameters"}
    assert set(yaml.safe_load(written)) <= keys
    # The command itself, without the start time of its process.
    mergekit_yaml.main(
        [str(tmp_path / "ours/mergekit.yaml"), str(tmp_path / "theirs"), "--quiet", *command[4:]], standalone_mode=False
    )
    ours, theirs = (
        load_file(tmp_path / "ours/model/model.safetensors"),
        load_file(tmp_path / "theirs/model.safetensors"),
    )
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert ours[name].dtype == theirs[name].dtype == dtype
        assert torch.equal(ours[name], theirs[name]), name
    card = json.loads((tmp_path / "ours/merge.json").read_text())
    assert card["recipe"] == recipe
    assert set(card["parents"]) == {"base", *recipe["members"]}
    assert card["weights"] == checkpoint_files.digest(tmp_path / "ours/model")


@pytest.mark.parametrize("method", ["linear", "ties_paper"])
def test_a_merged_folder_loads(gpt2, tmp_path, method):
    values = {"method": "ties", "convention": "paper", "density": 0.5} if "_" in method else {"method": method}
    recipe = recipe_of(values)
    assert recipe["method"] == method
    merge.main(argparse.Namespace(recipe=recipe, models=gpt2, base="base", gpus=0, kept=None, output=tmp_path / "ours"))
    model, _ = loading.load_model(tmp_path / "ours/model")
    assert model.config.id2label == dict(enumerate(LABELS))
    (model_file,) = (tmp_path / "ours/model").glob("*.safetensors")
    state = load_file(model_file)
    save_file(state, tmp_path / "again.safetensors", metadata={"format": "pt"})
    assert (tmp_path / "again.safetensors").read_bytes() == model_file.read_bytes()  # as the library writes it


def arrays(models: Path, names) -> dict[str, dict[str, np.ndarray]]:
    return {n: {k: v.double().numpy() for k, v in loading.read_state(models / n).items()} for n in names}


# Entries of a tensor that may differ. A threshold may choose the other of two entries that are equal in
# float32 but not in float64; arcee_fusion's measure is a difference of nearly equal numbers, partly noise in float32.
SELECTING = ("ties", "breadcrumbs", "breadcrumbs_ties", "sce", "ram", "ramplus_tl", "arcee_fusion")


def close_to(found: dict[str, torch.Tensor], expected: dict[str, np.ndarray], method: str) -> None:
    for name, tensor in found.items():
        # Vectors of two entries may be nearly parallel; the angle between them then has few digits in float32.
        rough = 1e-4 if method == "nuslerp" and 2 in tensor.shape else 1e-6
        off = np.sum(~np.isclose(tensor.double().numpy(), expected[name], rtol=rough, atol=rough))
        allowed = max(2, tensor.numel() * (1e-2 if method == "arcee_fusion" else 1e-4)) if method in SELECTING else 0
        assert off <= allowed, name


@pytest.mark.parametrize(
    "values", [r for r in RECIPES if "density" not in r or "seed" not in r], ids=lambda v: v["method"]
)
def test_references_in_double_precision(models, values):
    recipe = recipe_of(values)
    states = arrays(models, ("base", *recipe["members"]))
    found = merged(models, recipe)
    depth = Depth(sorted(found), json.loads((models / "base/config.json").read_text()))
    uses_base = recipe["base"] == "base"
    expected = {}
    for name in found:
        parameters = {k: v for k, v in recipe["parameters"].items() if k not in ("use_base", "out_dtype", "seed")}
        for key, value in parameters.items():
            if isinstance(value, dict) and "layers" not in value:
                parameters[key] = [depth.at(value[m], name) for m in recipe["members"]]
            else:
                parameters[key] = depth.at(value, name)
        if recipe["method"] == "nuslerp" and not isinstance(parameters["weight"], list):
            parameters["weight"] = [parameters["weight"]] * 2
        base = states["base"][name] if uses_base else None
        members = [states[m][name] for m in recipe["members"]]
        expected[name] = references.reference(recipe["method"], parameters, base, members)
    close_to(found, expected, recipe["method"])


def test_values_that_change_with_depth(models):
    """Values spread evenly over the layers; tensors of no layer have a separate value."""
    found = merged(
        models, recipe_of({"method": "slerp", "members": ["a", "b"], "t": {"layers": [0.0, 1.0], "rest": 0.5}})
    )
    states = {n: loading.read_state(models / n) for n in "ab"}
    depth = Depth(sorted(found), json.loads((models / "base/config.json").read_text()))
    assert depth.layers
    for prefix, count in depth.layers.items():
        for name in found:
            if name.startswith(f"{prefix}0."):
                assert torch.equal(found[name], states["a"][name]), name
            elif name.startswith(f"{prefix}{count - 1}."):
                assert torch.equal(found[name], states["b"][name]), name
    rest = [n for n in found if not n.startswith(tuple(depth.layers))]
    assert {n.split(".")[-2] for n in rest} & {"embed_tokens", "wte", "word_embeddings", "shared"}
    for name in rest:
        assert not torch.equal(found[name], states["a"][name]) and not torch.equal(found[name], states["b"][name])


# ── The papers' conventions ──


@pytest.mark.parametrize("normalize", [True, False])
def test_ties_by_the_paper(models, normalize):
    values = {"method": "ties", "convention": "paper", "density": 0.2, "lambda": 0.7, "normalize": normalize}
    found, states = merged(models, recipe_of(values)), arrays(models, ("base", *MEMBERS))
    expected = references.ties_paper(states["base"], [states[m] for m in MEMBERS], 0.2, 1.0, 0.7, normalize)
    close_to(found, expected, "ties")


def test_one_threshold_for_all_tensors_spares_the_tensors_with_the_large_changes(tmp_path):
    """mergekit keeps the same share of each tensor; the paper keeps the largest entries of the full model."""
    models = make_models(tiny_gpt2, tmp_path)
    base = loading.read_state(models / "base")
    for member in MEMBERS:
        state = loading.read_state(models / member)
        state = {k: base[k] + (v - base[k]) * (0.01 if "mlp" in k else 1.0) for k, v in state.items()}
        save_file(state, models / member / "model.safetensors", metadata={"format": "pt"})
    values = {"method": "ties", "density": 0.2}
    theirs, paper = (merged(models, recipe_of({**values, "convention": c})) for c in ("mergekit", "paper"))
    small = next(k for k in base if k.endswith("mlp.c_fc.weight"))
    assert torch.equal(paper[small], base[small])
    changed = (theirs[small] != base[small]).double().mean()
    assert 0.2 < changed < 0.6


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_dare_by_the_paper_divides_by_the_density(gpt2, method):
    """With one member, mergekit keeps the same entries under the same seed, and all are scaled by the same factor."""
    values = {"method": method, "members": ["a", "b"], "weight": {"a": 1.0, "b": 0.0}, "density": 0.4, "seed": 3}
    theirs, paper = (merged(gpt2, recipe_of({**values, "convention": c})) for c in ("mergekit", "paper"))
    base, state = (loading.read_state(gpt2 / n) for n in ("base", "a"))
    for name, value in base.items():
        kept = paper[name] != value
        assert torch.equal(kept, theirs[name] != value)
        expected = torch.where(kept, value + (state[name] - value) / 0.4, value)
        assert torch.allclose(paper[name], expected, atol=1e-6)


@pytest.mark.parametrize("filter_wise", [True, False])
def test_model_stock_by_the_paper_has_no_floor(tmp_path, filter_wise):
    models = make_models(tiny_gpt2, tmp_path)
    base = arrays(models, ["base"])["base"]
    for member in MEMBERS:  # changes as small as those of a small learning rate
        state = arrays(models, [member])[member]
        state = {k: torch.tensor(base[k] + 1e-4 * (v - base[k])) for k, v in state.items()}
        save_file(state, models / member / "model.safetensors", metadata={"format": "pt"})
    values = {"method": "model_stock", "filter_wise": filter_wise}
    with pytest.raises(Failure, match="convention: paper, which has no such floor"):
        merged(models, recipe_of(values))
    found = merged(models, recipe_of({**values, "convention": "paper"}))
    states = {m: {k: v.float().double().numpy() for k, v in loading.read_state(models / m).items()} for m in MEMBERS}
    for name, tensor in found.items():
        expected = references.model_stock_paper(base[name], [states[m][name] for m in MEMBERS], filter_wise)
        assert np.allclose(tensor.double().numpy(), expected, atol=1e-6)


# ── Algebraic identities, on tensors of all shapes ──


@st.composite
def inputs(draw, count=None):
    """Make a base and members near it; coarse ones have many equal magnitudes and unchanged entries."""
    torch.manual_seed(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.sampled_from([(), (1,), (3,), (17,), (5, 6), (2, 3, 4), (40, 25)]))
    members = count or draw(st.integers(2, 5))
    base = torch.randn(shape)
    step = draw(st.sampled_from([0.0, 1 / 64, 1e-3]))
    changes = [0.05 * torch.randn(shape) for _ in range(members)]
    return base, [base + (torch.round(c / step) * step if step else c) for c in changes]


def of(name: str, base, members, **parameters) -> torch.Tensor:
    """Merge one tensor as a merge job does."""
    tensors = [base, *members] if base is not None else members
    index = 0 if base is not None or name in ("slerp", "nearswap") else None
    group = TensorGroup.from_tensors(tensors, base_index=index)
    parameters = {k.rstrip("_"): v for k, v in parameters.items()}
    return methods.method(name)((group,), parameters=parameters, dtype=torch.float32)[0]


def near(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-5, atol=1e-6)


@UNHURRIED
@given(inputs(), st.floats(0.05, 1.0), st.floats(0.0, 0.3))
def test_quicker_ways_give_mergekits_bits(given_, density, gamma):
    """Cover equal magnitudes at the border too: mergekit's sorting decides which are kept, and the result agrees."""
    base, members = given_
    for name in ("ties", "breadcrumbs", "breadcrumbs_ties"):
        more = {"gamma": gamma} if name != "ties" else {}
        parameters = {"weight": 1.0, "density": density, "rescale": True, **more}
        group = TensorGroup.from_tensors([base, *members], base_index=0)
        slow = mergekits.get(name)((group,), parameters=parameters)[0]
        assert torch.equal(of(name, base, members, **parameters), slow)


@UNHURRIED
@given(inputs(), st.floats(-2, 2), st.floats(0.1, 1.0))
def test_task_vectors_are_scaled_by_lambda(given_, factor, density):
    base, members = given_
    more = {"weight": 0.5}
    for name in ("task_arithmetic", "ties", "breadcrumbs", "dare_linear_paper"):
        thin = {} if name == "task_arithmetic" else {"density": 1.0 if name.startswith("dare") else density}
        none, one, scaled = (of(name, base, members, lambda_=la, **thin, **more) for la in (0.0, 1.0, factor))
        assert torch.equal(none, base)
        assert near(scaled, base + factor * (one - base))


@UNHURRIED
@given(inputs(count=1))
def test_one_member_whole_is_that_member(given_):
    base, (member,) = given_
    for name in ("ties", "task_arithmetic", "dare_linear", "dare_ties", "della", "della_linear"):
        assert near(
            of(name, base, [member], weight=1.0, **({"density": 1.0} if name != "task_arithmetic" else {})), member
        )
    assert torch.equal(of("passthrough", None, [member]), member)


@UNHURRIED
@given(inputs(), st.floats(-2, 2))
def test_density_one_thins_nothing(given_, weight):
    base, members = given_
    plain = of("task_arithmetic", base, members, weight=weight)
    for name in ("dare_linear", "dare_linear_paper", "della_linear", "breadcrumbs"):
        assert torch.equal(of(name, base, members, weight=weight, density=1.0), plain)
    elected = of("ties", base, members, weight=weight, density=1.0, normalize=False)
    for name in ("dare_ties", "dare_ties_paper", "breadcrumbs_ties"):
        assert torch.equal(of(name, base, members, weight=weight, density=1.0), elected)


@UNHURRIED
@given(inputs(count=2))
def test_interpolation_ends_in_its_ends(given_):
    _, (one, other) = given_
    assert torch.equal(of("slerp", None, [one, other], t=0.0), one)
    assert torch.equal(of("slerp", None, [one, other], t=1.0), other)
    assert near(of("slerp", None, [one, other], t=0.25), of("slerp", None, [other, one], t=0.75))
    assert near(of("nuslerp", None, [one, other], weight={0: 1.0, 1: 0.0}), one)
    assert torch.equal(of("nearswap", None, [one, other], t=0.0), one)


@UNHURRIED
@given(inputs(), st.sampled_from([0.25, 2.0, 1024.0]))  # powers of two need no rounding
def test_normalised_weights_are_weights_up_to_a_factor(given_, factor):
    base, members = given_
    weights = {i: 1.0 + i for i in range(len(members))}
    scaled = {i: w * factor for i, w in weights.items()}
    assert near(of("linear", None, members, weight=weights), of("linear", None, members, weight=scaled))
    own, grown = ({i + 1: w for i, w in of_.items()} for of_ in (weights, scaled))
    for name in ("ties", "task_arithmetic"):
        more = {"normalize": True, **({"density": 1.0} if name == "ties" else {})}
        assert near(of(name, base, members, weight=own, **more), of(name, base, members, weight=grown, **more))


@UNHURRIED
@given(inputs(), st.randoms(use_true_random=False))
def test_the_order_of_members_says_nothing(given_, order):
    base, members = given_
    shuffled = order.sample(members, len(members))
    cases = [("linear", None, {"weight": 1.0}), ("karcher", None, {}), ("multislerp", None, {"weight": 1.0}),
             ("task_arithmetic", base, {"weight": 0.3}), ("ties", base, {"weight": 1.0, "density": 1.0}),
             ("model_stock", base, {}), ("sce", base, {}), ("ram", base, {})]  # fmt: skip
    for name, origin, parameters in cases:
        one, other = (of(name, origin, m, **parameters) for m in (members, shuffled))
        # Sums are in another order: an entry whose values nearly cancel may elect the other sign.
        off = (~torch.isclose(one, other, rtol=1e-4, atol=1e-5)).sum()
        assert off <= (max(2, one.numel() // 50) if name in ("ties", "sce") else 0), name


@UNHURRIED
@given(inputs(count=1), st.integers(2, 4))
def test_equal_members_merge_to_themselves(given_, count):
    base, (member,) = given_
    same = [member] * count
    for name in ("linear", "multislerp", "karcher"):
        assert near(of(name, None, same, **({} if name == "karcher" else {"weight": 1.0})), member), name
    for name in ("ties", "sce", "ram"):
        more = {"weight": 1.0, "density": 1.0} if name == "ties" else {"epsilon": 0.0} if name == "ram" else {}
        assert near(of(name, base, same, **more), member), name
    if base.dim() and base.numel() > 3 and not torch.equal(base, member):
        assert near(of("model_stock_paper", base, same), member)


# ── Random methods ──


@pytest.mark.parametrize("method", ["dare_linear", "della_linear"])
def test_random_methods_keep_the_stated_share(gpt2, method):
    states = {n: loading.read_state(gpt2 / n) for n in ("base", "a")}
    weight = {"a": 1.0, "b": 0.0}
    values = {"method": method, "members": ["a", "b"], "weight": weight, "density": 0.3, "seed": 11}
    found = merged(gpt2, recipe_of(values))
    kept = total = 0
    for name, value in states["base"].items():
        changed = found[name] != value
        kept += changed.sum().item()
        total += value.numel()
        # Rescaled to the same L1 norm, tensor by tensor.
        before, after = (states["a"][name] - value).abs().sum(), (found[name] - value).abs().sum()
        assert not changed.any() or float(after) == pytest.approx(float(before), rel=1e-4)
    assert kept / total == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / total) ** 0.5 + 0.001)


def test_della_keeps_large_changes_with_the_higher_probability(gpt2):
    """The share kept at each rank, averaged over seeds, rises from density - epsilon to density + epsilon."""
    states = {n: loading.read_state(gpt2 / n) for n in ("base", "a")}
    name = "transformer.wte.weight"
    rank = (states["a"][name] - states["base"][name]).abs().argsort(dim=1).argsort(dim=1)
    width, kept = rank.shape[1], torch.zeros(rank.shape[1])
    seeds = 20
    for seed in range(seeds):
        weight = {"a": 1.0, "b": 0.0}
        values = {"method": "della_linear", "members": ["a", "b"], "weight": weight, "density": 0.5, "seed": seed}
        changed = merged(gpt2, recipe_of({**values, "epsilon": 0.2}))[name] != states["base"][name]
        kept += torch.stack([changed[rank == r].double().mean() for r in range(width)]) / seeds
    expected = 0.3 + torch.arange(width) / (width - 1) * 0.4
    error = (0.25 / (seeds * rank.shape[0])) ** 0.5
    assert (kept - expected).abs().max() < 4.5 * error
