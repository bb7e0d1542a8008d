import copy
import json
import re
import time

import jsonschema
import pytest
import yaml

from conftest import ROOT
from mllm.evaluation import metrics
from mllm.experiment import grid, load, schema, yaml_files
from mllm.experiment.yaml_files import ExperimentError

DEMO = yaml_files.read_yaml(ROOT / "config/demo.yaml")


def changed(**paths):
    """Return the demo's plain values with some replaced: a path is a.b.0.c with __ for the dots; ... removes the key."""
    raw = copy.deepcopy(DEMO)
    for path, value in paths.items():
        *parents, last = [int(p) if p.isdigit() else p for p in path.split("__")]
        node = raw
        for step in parents:
            node = node[step]
        if value is ...:
            del node[last]
        else:
            node[last] = value
    return raw


def test_new_training_keys_change_no_other_training():
    """Files without these keys, or with their neutral values, keep their names and settings."""
    plain = grid.build(schema.Experiment.model_validate(DEMO)).candidates["pain"].hyper
    assert not {"freeze", "head_only"} & set(plain)
    neutral = changed(experts__0__freeze=0, experts__0__head_only=False)
    assert grid.build(schema.Experiment.model_validate(neutral)).candidates["pain"].hyper == plain
    frozen = changed(experts__0__freeze=1, experts__0__class_weights="balanced")
    hyper = grid.build(schema.Experiment.model_validate(frozen)).candidates["pain"].hyper
    assert hyper == {**plain, "freeze": 1, "class_weights": "balanced"}


TIES = {"method": "ties", "members": ["pain", "acne"], "density": 0.5}
DARE = {"method": "dare_linear", "members": ["pain", "acne"], "density": 0.5}
LINEAR = {"method": "linear", "members": ["pain", "acne"]}

# (change of a good file, parts that the one message about it must have)
BAD = [
    ({"mergs": []}, ["mergs", "unknown key", "did you mean 'merges'"]),
    ({"seed": "17"}, ["seed", "'17'", "whole number"]),
    ({"seed": -1}, ["seed", "-1"]),
    (
        {"tasks__0": {"name": "t", "label": "condition", "top": 3}, "compare__metric": "mae"},
        ["compare.metric: mae needs ordered classes", "task t"],
    ),
    ({"candidates": {"from": "x", "kinds": {"expert": ["*"]}}}, ["candidates", "only for data.source: predictions"]),
    ({"blends__0__method": "hard_vote"}, ["blends[0].method", "'hard_vote'", "soft_vote"]),
    ({"name": "a/b"}, ["name", "'a/b'", "letters"]),
    ({"name": ...}, ["name", "missing"]),
    ({"tasks__0__label": "raiting"}, ["tasks[0].label", "'raiting'", "did you mean 'rating'"]),
    ({"tasks__0__label": "condition"}, ["tasks[0].top", "missing"]),
    ({"tasks__0__label": ...}, ["tasks[0].label", "missing", "column and classes"]),
    ({"tasks__0": {"name": "t", "column": "stars", "classes": {"a": [1], "b": [2]}}}, ["tasks[0].column", "'stars'"]),
    (
        {"tasks__0": {"name": "t", "column": "year", "classes": {"a": [1], "b": [1]}}},
        ["tasks[0].classes", "'1'", "2 times"],
    ),
    ({"tasks__0": {"name": "t", "column": "year"}}, ["tasks[0].classes", "missing"]),
    ({"tasks__0__column": "year"}, ["tasks[0].label", "found beside column"]),
    ({"tasks__0__ordered": True}, ["tasks[0].ordered", "only beside column"]),
    (
        {"tasks": [{"name": "t", "label": "rating"}, {"name": "s", "label": "sentiment"}]},
        ["experts[0].task", "missing"],
    ),
    ({"experts__0__task": "mood"}, ["experts[0].task", "'mood'"]),
    ({"experts__0__cap": 0}, ["experts[0].cap", "0"]),
    ({"data": {"source": "local", "train": "a.csv"}}, ["data.test", "split.mode must be random"]),
    (
        {"data": {"source": "local", "train": "a", "test": "b", "columns": {"text": "t"}}},
        ["data.columns.review", "missing"],
    ),
    (
        {"data": {"source": "local", "train": "a", "test": "b", "columns": {"review": "t", "group": "g"}}},
        ["data.columns.group", "taken"],
    ),
    (
        {"data": {"source": "local", "train": "a", "test": "b", "columns": {"review": "t", "label_x": "g"}}},
        ["data.columns.label_x", "taken"],
    ),
    (
        {"data": {"source": "local", "train": "a", "test": "b", "columns": {"review": "t"}}},
        ["tasks[0].label", "needs data.columns"],
    ),
    ({"split": {"mode": "official-clean", "test": 0.2}}, ["split.test", "only for mode: random"]),
    ({"split": {"mode": "random", "valid": 0.5, "test": 0.6}}, ["split", "1.1 of all reviews"]),
    ({"tasks__0__top": 5}, ["tasks[0].top", "only for label: condition"]),
    ({"tasks": []}, ["tasks", "at least 1"]),
    ({"data": {"source": "kaggle"}}, ["data", "'kaggle'", "uci"]),
    ({"data__rows": 5.5}, ["data.rows", "5.5", "whole number"]),
    ({"split__valid": 1.0}, ["split.valid", "1.0", "less than 1"]),
    ({"split__mode": "offical"}, ["split.mode", "did you mean 'official'"]),
    ({"base": "gpt2"}, ["base", "'gpt2'", "tiny-gpt2"]),
    ({"models__0__source": "scrach"}, ["models[0]", "did you mean 'scratch'"]),
    ({"models__0__width": 0}, ["models[0].width", "0"]),
    ({"models__0__family": "casual"}, ["models[0].family", "'casual'", "did you mean 'causal'"]),
    (
        {"models__0__family": "causal", "models__0__prompt": {"examples": 2}},
        ["base", "'tiny-gpt2' is fine-tuned, and shown no examples"],
    ),
    (
        {"models__0__architecture": "bert", "models__0__pretrain": {"steps": 3}},
        ["models[0].pretrain", "trains a language model, which bert is not"],
    ),
    ({"experts__0": {"name": "pain", "model": "tiny-gpt3"}}, ["experts[0].model", "did you mean 'tiny-gpt2'"]),
    (
        {"experts__0": {"name": "pain", "model": "tiny-gpt2", "steps": 3}},
        ["experts[0].steps: found beside model, which is taken as it is"],
    ),
    ({"models__0__prompt": {}}, ["models[0].prompt", "a classifier is asked nothing"]),
    ({"experts__0__freeze": 3}, ["experts[0].freeze", "found 3, expected at most 2, the layers of model 'tiny-gpt2'"]),
    ({"experts__0__head_only": True, "experts__0__freeze": 1}, ["experts[0].head_only", "found beside freeze"]),
    (
        {"models__0__family": "causal", "experts__0__head_only": True},
        ["experts[0].head_only", "family causal, which has no head"],
    ),
    ({"experts__0__class_weights": "root"}, ["experts[0].class_weights", "'root'", "sqrt"]),
    (
        {"references__0": {"name": "r", "model": "tiny-gpt2", "train": "none"}},
        ["references[0].train", "its head is random until trained"],
    ),
    ({"references__0": {"name": "r", "model": "tiny-gpt2", "train": "some"}}, ["references[0].train", "'some'"]),
    ({"models__0__pretrain": {"step": 3, "steps": 3}}, ["models[0].pretrain.step", "did you mean 'steps'"]),
    (
        {"models__0": {"name": "g", "source": "hub", "id": "openai-community/gpt2", "revision": "ma in"}, "base": "g"},
        ["models[0].revision", "'ma in'", "40 hexadecimal"],
    ),
    ({"experts__1__name": "pain"}, ["'pain' names 2 candidates"]),
    ({"experts__0__name": "base-sentiment"}, ["'base-sentiment' names 2 candidates", "base of a task"]),
    ({"experts__0__name": "x.base"}, ["'x.base'", "reserved for prepared bases"]),
    ({"models__0__gpus": 0}, ["models[0].gpus", "0", "greater than or equal to 1"]),
    ({"models__0__gpus": 3}, ["experts[0].batch_size", "3 GPUs", "shared equally"]),
    ({"experts__0__epochs": 1.0}, ["experts[0].epochs", "steps"]),
    ({"experts__0__parts": 3}, ["experts[0].parts", "where"]),
    ({"experts__0__where": {"conditon": ["Pain"]}}, ["experts[0].where.conditon", "did you mean 'condition'"]),
    ({"experts__0__learning_rate": True}, ["experts[0].learning_rate", "true", "number"]),
    ({"experts__0__learning_rate": "fast"}, ["experts[0].learning_rate", "'fast'"]),
    ({"merges__0": {"method": "tise", "members": ["pain"]}}, ["merges[0]", "'tise'", "did you mean 'ties'"]),
    ({"merges__0__members": ["pian", "acne"]}, ["merges[0].members", "'pian'", "did you mean 'pain'"]),
    ({"merges__0__members": ["shard-*"]}, ["merges[0].members", "'shard-*'", "matches none"]),
    ({"merges__0__members": ["pain"]}, ["merges[0].members", "at least 2"]),
    ({"merges__0__members": ["pain", "pain"]}, ["merges[0].members", "2 times"]),
    ({"merges__1__members": ["pain", "acne", "depression"]}, ["merges[1].members", "exactly 2", "found 3"]),
    ({"merges__1__t": [0.5, 1.5]}, ["merges[1].t[1]", "1.5", "less than or equal to 1"]),
    ({"merges__1__t": ...}, ["merges[1].t", "missing"]),
    ({"merges__0": {**TIES, "densitty": 0.5}}, ["merges[0].densitty", "did you mean 'density'"]),
    ({"merges__0": {**TIES, "density": 30}}, ["merges[0].density", "30", "not a percentage"]),
    ({"merges__0": {**TIES, "density": 0}}, ["merges[0].density", "greater than 0"]),
    ({"merges__0": {**TIES, "density": -1}}, ["merges[0].density", "-1"]),
    ({"merges__0": {**TIES, "density": []}}, ["merges[0].density", "at least 1"]),
    ({"merges__0": {**TIES, "lambda": float("nan")}}, ["merges[0].lambda", "nan", "finite"]),
    ({"merges__0": {**TIES, "lamda": 1.0}}, ["merges[0].lamda", "did you mean 'lambda'"]),
    ({"merges__0": {**TIES, "weight": True}}, ["merges[0].weight", "true", "finite number"]),
    ({"merges__0": {**TIES, "weight": "0.5"}}, ["merges[0].weight", "'0.5'"]),
    ({"merges__0": {**TIES, "weight": {"pain": 1.0}}}, ["merges[0].weight", "no weight for acne"]),
    ({"merges__0": {**TIES, "weight": {"pain": 1.0, "acne": 1, "x": 1}}}, ["merges[0].weight", "'x'"]),
    ({"merges__0": {**TIES, "weight": float("nan")}}, ["merges[0].weight", "nan"]),
    ({"merges__0": {**LINEAR, "weight": 0}}, ["merges[0].weight", "sum to 0"]),
    ({"merges__0": {**LINEAR, "weight": [1.0, {"pain": 1, "acne": -1}]}}, ["merges[0].weight[1]", "sum to 0"]),
    ({"merges__0": {**LINEAR, "t": 0.5}}, ["merges[0].t", "unknown key"]),
    ({"merges__0": {**DARE, "seed": 1.5}}, ["merges[0].seed", "1.5", "whole number"]),
    ({"merges__0": {**DARE, "rescale": "yes"}}, ["merges[0].rescale", "true or false"]),
    ({"merges__0": {**LINEAR, "weight": {"layers": [1, 0]}}}, ["merges[0].weight", "rest", "both keys"]),
    ({"merges__0": {**LINEAR, "weight": {"layers": [1], "rest": 1}}}, ["merges[0].weight", "at least 2 values"]),
    ({"merges__0": {**LINEAR, "weight": {"layers": [1, 1], "rest": 0}}}, ["merges[0].weight", "sum to 0"]),
    ({"merges__1__t": {"layers": [0, 1.5], "rest": 0.5}}, ["merges[1].t", "less than or equal to 1"]),
    ({"merges__1__t": {"pain": 0.5, "depression": 0.5}}, ["merges[1].t", "expected a finite number"]),
    ({"merges__0": {**TIES, "density": {"pain": 0.5, "acne": 1.5}}}, ["merges[0].density", "not a percentage"]),
    ({"merges__0": {**TIES, "density": {"pain": 0.5}}}, ["merges[0].density", "no density for acne"]),
    ({"merges__0": {**TIES, "weight": {"pain": 1, "acne": -1}}}, ["merges[0].weight", "normalize: false"]),
    ({"merges__0": {**TIES, "convention": "papers"}}, ["merges[0].convention", "did you mean 'paper'"]),
    (
        {"merges__0": {**TIES, "convention": "paper", "density": {"layers": [0.1, 0.9], "rest": 0.5}}},
        ["merges[0].density", "one threshold"],
    ),
    ({"merges__0": {**TIES, "out_dtype": "fp16"}}, ["merges[0].out_dtype", "'fp16'", "float16"]),
    ({"merges__0": {**TIES, "method": "breadcrumbs", "density": 0.995}}, ["merges[0].density", "gamma 0.01"]),
    (
        {"merges__0": {**TIES, "method": "breadcrumbs", "density": 0.5, "gamma": [0.1, 0.6]}},
        ["merges[0].density", "0.6"],
    ),
    ({"merges__0": {**TIES, "method": "della", "density": 0.1}}, ["merges[0].density", "epsilon 0.15", "-0.05"]),
    ({"merges__0": {**TIES, "method": "della_linear", "density": 0.9}}, ["merges[0].density", "1.05"]),
    ({"merges__0": {**LINEAR, "method": "nuslerp", "weight": 0}}, ["merges[0].weight", "sum to 0"]),
    ({"merges__0": {**LINEAR, "method": "nuslerp", "weight": {"pain": 1, "acne": -0.5}}}, ["merges[0].weight", "-0.5"]),
    ({"merges__0": {**LINEAR, "method": "multislerp", "weight": {"pain": 1, "acne": -1}}}, ["merges[0].weight", "sum"]),
    ({"merges__0": {**LINEAR, "method": "karcher", "weight": 1}}, ["merges[0].weight", "unknown key"]),
    ({"merges__0": {**LINEAR, "method": "karcher", "max_iter": 0}}, ["merges[0].max_iter", "0"]),
    ({"merges__0": {**LINEAR, "method": "passthrough"}}, ["merges[0].members", "exactly 1"]),
    ({"merges__0": {**LINEAR, "method": "nearswap", "t": -1}}, ["merges[0].t", "-1"]),
    ({"merges__0": {**LINEAR, "method": "sce", "select_topk": 0}}, ["merges[0].select_topk", "greater than 0"]),
    ({"merges__0": {**LINEAR, "method": "ram", "epsilon": -1}}, ["merges[0].epsilon", "-1"]),
    ({"merges__0": {**LINEAR, "method": "moe", "experts_per_token": 3}}, ["merges[0].experts_per_token", "2 members"]),
    (
        {"merges__0": {**LINEAR, "method": "moe", "gate_mode": "hiden"}},
        ["merges[0].gate_mode", "did you mean 'hidden'"],
    ),
    ({"merges__0": {**LINEAR, "method": "moe"}}, ["merges[0].method", "'gpt2'", "blend"]),
    ({"experts__0__name": "layers"}, ["'layers'", "changes with depth"]),
    ({"blends__0__members": ["nobody"]}, ["blends[0].members", "'nobody'"]),
    ({"blends__0__method": "softvote"}, ["blends[0].method", "did you mean 'soft_vote'"]),
    ({"references__0__model": "tfdif"}, ["references[0].model", "did you mean 'tfidf'"]),
    ({"references__0__epochs": 3}, ["references[0].epochs", "unknown key"]),
    ({"compare__metric": "f1"}, ["compare.metric", "'f1'", "macro_f1"]),
    ({"keep": "some"}, ["keep", "'some'", "winners"]),
    ({"experts": {"pain": 1}}, ["experts", "list"]),
]


@pytest.mark.parametrize(("change", "pieces"), BAD, ids=[pieces[0] + str(i) for i, (_, pieces) in enumerate(BAD)])
def test_bad_file_gets_one_clear_line(change, pieces):
    with pytest.raises(ExperimentError) as caught:
        load.parse(changed(**change), "some.yaml")
    assert "some.yaml" in str(caught.value)
    matching = [p for p in caught.value.problems if all(piece in p for piece in pieces)]
    assert len(matching) == 1, caught.value.problems
    # Consequences of a wrong name elsewhere may be reported too, but each key only once.
    keys = [p.split(":")[0] for p in caught.value.problems]
    assert len(keys) == len(set(keys))


def test_all_errors_at_once():
    raw = changed(mergs=[], seed="x", merges__0__members=["pian"], base=..., keep="x")
    with pytest.raises(ExperimentError) as caught:
        load.parse(raw)
    assert {p.split(":")[0] for p in caught.value.problems} == {"mergs", "seed", "merges[0].members", "base", "keep"}
    assert str(caught.value).startswith("experiment: 5 errors")


@pytest.mark.parametrize("raw", [{}, {"merges": None, "models": 3, "experts": [None, "x", {"name": 4}]}, {"data": []}])
def test_malformed_values_never_crash(raw):
    with pytest.raises(ExperimentError):
        load.parse(raw)


@pytest.mark.parametrize("name", ["config", "demo", "local"])
def test_shipped_experiments_are_good(name):
    raw = yaml_files.read_yaml(ROOT / f"config/{name}.yaml")
    experiment = load.parse(raw)
    assert len(grid.build(experiment).merges) >= 5
    assert {m.method for m in experiment.merges} >= {"linear", "slerp", "ties", "dare_linear", "dare_ties"}


def test_the_tables_in_the_documentation_are_good():
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/data.md").read_text(), re.S)
    assert len(blocks) == 3
    for block in blocks:
        raw = {**DEMO, **yaml.safe_load(block), "experts": [{"name": "part", "parts": 3}]}
        raw["merges"], raw["blends"] = [{"method": "linear", "members": ["part-*"]}], []
        experiment = load.parse(raw)
        assert list(grid.build(experiment).bases) == [experiment.tasks[0].name]


def test_several_tasks_have_bases_and_merges_of_their_own():
    raw = {
        **DEMO,
        "tasks": [{"name": "mood", "label": "sentiment"}, {"name": "stars", "label": "rating"}],
        "experts": [{"name": "m", "parts": 2, "task": "mood"}, {"name": "s", "parts": 2, "task": "stars", "cap": 9}],
        "merges": [{"method": "ties", "members": ["m-*"], "density": 0.5}, {"method": "linear", "members": ["s-*"]}],
        "blends": [{"method": "soft_vote", "members": ["m-*", "base-mood"]}],
        "references": [{"name": "words", "model": "tfidf", "task": "stars"}],
    }
    built = grid.build(load.parse(raw))
    assert built.bases == {"mood": "base-mood", "stars": "base-stars"}
    assert built.candidates["s-1"].start.name == "base-stars" and built.candidates["s-1"].part["cap"] == 9
    by_kind = {(c.kind, c.task) for c in built.candidates.values()}
    assert {("merge", "mood"), ("merge", "stars"), ("blend", "mood"), ("reference", "stars")} <= by_kind
    (ties,) = (r for r in built.merges.values() if r.method == "ties")
    assert ties.base == "base-mood"

    raw["experts"][0]["name"], raw["merges"][0]["members"] = "b", ["b*"]  # bases are no members of merges
    raw["blends"] = []
    assert any(r.members == ("b-0", "b-1") for r in grid.build(load.parse(raw)).merges.values())
    raw["experts"][0]["name"], raw["blends"] = "m", [{"method": "soft_vote", "members": ["m-*"]}]
    raw["merges"][0]["members"] = ["m-0", "m-1"]
    raw["blends"][0]["members"] = ["m-0", "words"]
    with pytest.raises(ExperimentError) as caught:
        load.parse(raw)
    assert [p.split(":")[0] for p in caught.value.problems] == ["blends[0].members"]
    assert "m-0 (mood), words (stars)" in caught.value.problems[0]


def test_schema_file_is_up_to_date_and_agrees_with_the_model():
    schema = json.loads((ROOT / "config/experiment.schema.json").read_text())
    assert schema == json.loads(json.dumps(load.json_schema()))
    validator = jsonschema.Draft202012Validator(schema)
    for name in ("config", "demo", "local"):
        validator.validate(yaml_files.read_yaml(ROOT / f"config/{name}.yaml"))
    # The schema also refuses what it can check alone.
    refused = [change for change, _ in BAD if list(validator.iter_errors(changed(**change)))]
    assert len(refused) >= 35


def test_resolved_experiment_reads_back_the_same():
    experiment = load.parse(DEMO)
    text = yaml.safe_dump(experiment.model_dump(by_alias=True, exclude_none=True))
    assert load.parse(yaml.safe_load(text)) == experiment


def test_a_key_written_twice_is_refused(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("name: a\nseed: 1\nname: b\n")
    with pytest.raises(ExperimentError, match=r"x\.yaml(.|\n)*line 3: duplicate key 'name'"):
        yaml_files.read_yaml(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"- 1\n", "a list"), (b"a: [", "not valid YAML"), (b"a: \xff", "not UTF-8 at byte 3"), (b"", "nothing")],
)
def test_unreadable_files(tmp_path, content, message):
    file = tmp_path / "x.yaml"
    file.write_bytes(content)
    with pytest.raises(ExperimentError, match=message):
        yaml_files.read_yaml(file)
    with pytest.raises(ExperimentError, match="no such file"):
        yaml_files.read_yaml(tmp_path / "y.yaml")


def test_numbers_with_an_exponent_are_numbers(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("a: 6e-5\nb: 6.0e-5\nc: 1E3\nd: 0x1f\ne: 12\n")
    assert yaml_files.read_yaml(file) == {"a": 6e-5, "b": 6e-5, "c": 1000.0, "d": 31, "e": 12}


def test_combine_replaces_lists_and_merges_maps(tmp_path):
    first, second = tmp_path / "1.yaml", tmp_path / "2.yaml"
    first.write_text("data: {source: local, train: a, test: b}\nmerges: [1, 2]\n")
    second.write_text("data: {test: c}\nmerges: [3]\n")
    combined = yaml_files.combine([first, second], {"data": {"train": "z"}})
    assert combined == {"data": {"source": "local", "train": "z", "test": "c"}, "merges": [3]}


def test_metrics_have_one_list():
    allowed = schema.Metric.__args__
    assert tuple(allowed) == tuple(metrics.METRICS) == tuple(metrics.of_task(ordered=True))
    assert set(metrics.of_task(ordered=False)) == set(allowed) - {"kappa_quadratic", "mae", "spearman"}


def test_checking_is_cheap():
    """Checking imports no torch, mergekit or transformers: Snakemake checks the file again in every job."""
    import subprocess
    import sys

    code = "import sys; sys.path.insert(0, 'workflow/scripts'); from mllm.core import code_digest, compute; from mllm.execution import log_format; from mllm.experiment import grid, load;" \
           "grid.build(load.load('config/config.yaml')); print(*sys.modules)"  # fmt: skip
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not {"torch", "mergekit", "transformers", "polars", "numpy"} & set(out.split())


def test_a_large_grid_is_expanded_quickly():
    raw = changed(merges=[{**DARE, "seed": list(range(5000))}])
    begin = time.process_time()
    assert len(grid.build(load.parse(raw)).merges) == 5000
    assert time.process_time() - begin < 10  # seconds; a quadratic expansion takes minutes


LM = {"name": "lm", "family": "causal", "source": "scratch"}


@pytest.mark.parametrize(
    ("model", "reference", "pieces"),
    [
        (
            {"prompt": {"examples": 2}},
            {"train": "all"},
            ["references[3].model", "'lm'", "shown no examples"],
        ),
        ({"family": "text2text"}, {}, ["models[2].family", "'text2text'", "gpt2 makes classifier or causal"]),
        ({"prompt": {"template": "Good?"}}, {}, ["models[2].prompt.template", "expected {review} in it, once"]),
        ({"prompt": {"scores": "likelihood"}}, {}, ["models[2].prompt.scores", "did you mean 'score'"]),
        ({"prompt": {"score": "first"}}, {}, ["models[2].prompt.score", "'first'", "first_token"]),
        ({"dtype": "float16"}, {}, ["models[2].dtype", "'float16'", "bfloat16"]),
    ],
)
def test_language_models_that_cannot_be_asked(model, reference, pieces):
    raw = copy.deepcopy(DEMO)
    raw["models"].append(LM | model)
    raw["references"].append({"name": "zero", "model": "lm", "train": "none"} | reference)
    with pytest.raises(ExperimentError) as error:
        load.parse(raw)
    (line,) = error.value.problems
    assert all(piece in line for piece in pieces), line


@pytest.mark.parametrize(("data", "words"), [({"source": "synthetic"}, "Drug review: "), ({"source": "local", "train": "a.csv"}, "Text: ")])  # fmt: skip
def test_prompts_speak_of_drug_reviews_where_the_data_are(data, words):
    raw = yaml_files.read_yaml(ROOT / "config/demo.yaml")
    asked = {"name": "lm", "source": "local", "path": "lm", "family": "causal"}
    raw |= {"data": data, "split": {"mode": "random"}}
    raw["models"] += [asked, {**asked, "name": "own", "prompt": {"template": "{review}?", "examples": 2}}]
    found = load.parse(raw)
    assert found.model("lm").prompt.template.startswith(words)
    assert found.model("own").prompt.template == "{review}?"


def test_a_reference_that_is_not_trained_is_its_prepared_checkpoint():
    raw = copy.deepcopy(DEMO)
    raw["models"] += [LM, LM | {"name": "shown", "prompt": {"examples": 3}}]
    raw["references"] += [{"name": f"by-{m}", "model": m, "train": "none"} for m in ("lm", "shown")]
    found = grid.build(load.parse(raw))
    by = [found.candidates[n] for n in ("by-lm", "by-shown")]
    assert [c.folder for c in by] == ["models/lm-sentiment.base", "models/shown-sentiment.base"]
    assert [(c.method, c.made_by) for c in by] == [("zero_shot", "prepare_base"), ("few_shot", "prepare_base")]
    assert found.starts["lm-sentiment.base"].model.name == "lm"


@pytest.mark.parametrize(("architecture", "good"), [("llama", True), ("gpt2", False), ("bert", False)])
def test_a_mixture_needs_a_base_whose_blocks_can_be_mixed(architecture, good):
    """Cover a base from scratch, whose architecture is in the file."""
    raw = yaml.safe_load((ROOT / "config/demo.yaml").read_text())
    raw["models"][0] |= {"architecture": architecture, "pretrain": None}
    raw["merges"] = [{"method": "moe", "members": ["pain", "acne"]}]
    if good:
        assert load.parse(raw).merges[0].method == "moe"
    else:
        with pytest.raises(yaml_files.ExperimentError, match=f"moe needs a base of type llama.*found '{architecture}'"):
            load.parse(raw)


def test_an_expert_that_is_taken_must_be_somewhere():
    raw = yaml.safe_load((ROOT / "config/demo.yaml").read_text())
    raw["models"].append({**raw["models"][0], "name": "other"})
    raw["experts"].append({"name": "taken", "model": "other"})
    with pytest.raises(yaml_files.ExperimentError, match=r"experts\[3\].model: 'other' has no trained weights"):
        load.parse(raw)
