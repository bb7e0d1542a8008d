"""Check that an edit of the experiment file, or a deleted file, plans exactly the listed jobs.

One finished experiment of two tasks is fabricated: its outputs are empty files that Snakemake was told are its own.
Nothing is computed; every row is a dry run of the real rules.
"""

import copy
import re
import shutil
import subprocess
import sys

import pytest
import yaml

import forked_snakemake
from conftest import ROOT

EXPERIMENT = {
    "name": "two",
    "seed": 5,
    "data": {"source": "local", "train": "reviews.csv", "test": "more.csv", "columns": {"review": "text", "stars": "stars", "kind": "kind"}},
    "split": {"mode": "official-clean", "valid": 0.2},
    "tasks": [
        {"name": "mood", "column": "stars", "classes": {"bad": [1, 2], "good": [4, 5]}},
        {"name": "topic", "column": "kind", "classes": {"a": ["x"], "b": ["y"]}},
    ],
    "models": [
        {"name": "tiny", "source": "local", "path": "tiny"},
        {"name": "asked", "family": "causal", "source": "local", "path": "asked"},
    ],
    "base": "tiny",
    "experts": [
        {"name": "m", "task": "mood", "parts": 2, "steps": 2},
        {"name": "x", "task": "mood", "where": {"kind": ["x"]}, "steps": 2},
        {"name": "t", "task": "topic", "parts": 2, "steps": 2, "cap": 9},
    ],
    "merges": [
        {"method": "ties", "members": ["m-*"], "density": [0.5, 0.9]},
        {"method": "linear", "members": ["t-*"]},
        {"method": "karcher", "members": {"mood": ["m-*"], "topic": ["t-*"]}},
    ],
    "blends": [{"name": "vote", "method": "soft_vote", "members": ["m-*"]}],
    "references": [
        {"name": "words", "model": "tfidf", "task": "mood"},
        {"name": "all", "model": "asked", "task": "mood", "steps": 2},
        {"name": "zero", "model": "asked", "train": "none", "task": "topic"},
        {"name": "both", "model": "tiny", "train": "tasks", "tasks": ["mood", "topic"], "steps": 2},
    ],
    "compare": {"metric": "accuracy"},
}  # fmt: skip

FABRICATE = """
import contextlib, io, json, sys
from pathlib import Path
from snakemake.api import ConfigSettings, OutputSettings, ResourceSettings, SnakemakeApi
with contextlib.redirect_stdout(io.StringIO()), SnakemakeApi(OutputSettings()) as api:
    workflow = api.workflow(ResourceSettings(cores=1), ConfigSettings(configfiles=[Path("two.yaml")]), snakefile=Path(sys.argv[1]))
    workflow.dag().printrulegraph()
    files = [file for job in workflow._workflow.dag.jobs for file in job.output]
for file in files:
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir() if file.is_directory else path.write_text(json.dumps({"rows": {"train": 10}, "unlabelled": {}, "counts": {}}))
"""


def snakemake(folder, *arguments):
    done = forked_snakemake.run(["--configfile", "two.yaml", *arguments], folder)
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Make the folder of the finished experiment."""
    folder = tmp_path_factory.mktemp("edits")
    for file in ("reviews.csv", "more.csv"):
        (folder / file).write_text("text,stars,kind,more\nfine,5,x,1\nfine,4,x,1\nbad,1,y,2\nbad,2,z,2\n")
    for link in ("Snakefile", "workflow", "profiles", "config"):  # rules read paths from the project's root
        (folder / link).symlink_to(ROOT / link)
    for model in ("tiny", "asked"):
        (folder / model).mkdir()
    (folder / "two.yaml").write_text(yaml.safe_dump(EXPERIMENT, sort_keys=False))
    done = subprocess.run([sys.executable, "-c", FABRICATE, "Snakefile"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    snakemake(folder, "--touch", "--forceall", "--cores", "1")
    return folder


RULES = {
    rule for file in ROOT.glob("workflow/rules/*.smk") for rule in re.findall(r"(?:^ *rule |several\(\")(\w+)", file.read_text(), re.M)
} | {"predict_tasks_2"}  # fmt: skip


def planned(folder):
    """Return the jobs of a dry run: ``rule``, or ``rule:wildcard`` without a merge's hash."""
    found = set()
    for line in snakemake(folder, "-n").splitlines():
        if (
            (job := re.match(r"(\w+) +(\S*)", line)) and job[1] in RULES and not job[2].isdigit()
        ):  # a number: the statistics
            name = re.sub(r"-[0-9a-f]{10}(?=@|$)", "", job[2].rstrip(":"))
            found.add(f"{job[1]}:{name}" if name not in ("", "←") else job[1])
    return found


def each(rule, *names):
    return {f"{rule}:{name}" for name in names}


TABLES = {"leaderboard", "compare", "write_report", "export"}
SCORES = {"score"} | TABLES
AGAIN = ("ties-density0.5@2", "ties-density0.9@2", "linear@2")
OVER_TASKS = {"merge_tasks:karcher", "predict_tasks:karcher"}
BOTH = {"train_tasks:both", "predict_tasks:both"}  # learns what the experts of both tasks see
TRAINED_T = (
    each("train_expert", "t-0", "t-1")
    | each("predict", "t-0", "t-1", "linear")
    | {"merge:linear", "diagnose_members"}
    | OVER_TASKS
)


def expert(raw, name):
    return next(e for e in raw["experts"] if e["name"] == name)


def add(key, entry):
    return lambda raw: raw[key].append(entry)


def on_expert(name, /, **values):
    return lambda raw: expert(raw, name).update(values)


EDITS = {
    "nothing": (lambda raw: None, set()),
    "the order of keys": (lambda raw: raw.update(sorted(raw.items())), set()),
    "an expert more, by where": (
        add("experts", {"name": "y", "task": "mood", "where": {"kind": ["y"]}, "steps": 2}),
        {"train_expert:y", "predict:y", "blend:router-mood"} | BOTH | SCORES,
    ),
    "an expert less": (lambda raw: raw["experts"].remove(expert(raw, "x")), BOTH | SCORES),
    "an expert renamed": (
        on_expert("x", name="z"),
        {"train_expert:z", "predict:z"} | SCORES,  # the first two reuse results
    ),
    "a member of merges renamed": (
        lambda raw: (
            on_expert("t", name="u")(raw), raw["merges"][1].update(members=["u-*"]), raw["merges"][2].update(members=["m-*", "u-*"])
        ),
        each("train_expert", "u-0", "u-1") | each("predict", "u-0", "u-1", "linear") | {"merge:linear", "diagnose_members"}
        | OVER_TASKS | SCORES,
    ),
    "an expert's slice": (on_expert("x", where={"kind": ["y"]}), {"train_expert:x", "predict:x"} | BOTH | SCORES),
    "an expert's seed": (on_expert("x", seed=9), {"train_expert:x", "predict:x"} | SCORES),
    "an expert's cap": (on_expert("t", cap=8), TRAINED_T | BOTH | SCORES),
    "an expert's parts": (
        on_expert("t", parts=3),
        each("train_expert", "t-0", "t-1", "t-2") | each("predict", "t-0", "t-1", "t-2", "linear")
        | {"merge:linear", "diagnose_members"} | OVER_TASKS | BOTH | SCORES,
    ),
    "the order of experts": (lambda raw: raw["experts"].reverse(), SCORES),
    "a task more": (
        lambda raw: (
            raw["tasks"].append({"name": "stars", "column": "stars", "classes": {"1": [1], "5": [5]}}),
            raw["experts"].append({"name": "s", "task": "stars", "parts": 2, "steps": 2}),
            raw["merges"].append({"method": "linear", "members": ["s-*"]}),
        ),
        {"label_reviews:stars", "prepare_base:base-stars", "tokenise:base-stars", "merge:linear", "diagnose_members"}
        | each("train_expert", "s-0", "s-1") | each("predict", "base-stars", "s-0", "s-1", "linear") | SCORES,
    ),
    "a task's values": (
        lambda raw: raw["tasks"][1].update(classes={"a": ["x"], "b": ["z"]}),
        {"label_reviews:topic", "prepare_base:base-topic", "predict:base-topic", "prepare_base:asked-topic.base", "predict:zero",
         "tokenise:base-topic", "tokenise:asked-topic.base"}
        | TRAINED_T | BOTH | SCORES,
    ),
    "a class's name": (
        lambda raw: raw["tasks"][0].update(classes={"poor": [1, 2], "good": [4, 5]}),
        {"tokenise:asked-mood.base", "train_expert:all", "predict:all"} | SCORES,  # all is asked with prompts
    ),
    "classes with an order": (lambda raw: raw["tasks"][1].update(ordered=True), SCORES),
    "what the texts are": (lambda raw: raw["data"].update(description="notes on toys"), {"write_report", "export"}),
    "a data column more": (
        lambda raw: raw["data"]["columns"].update(more="more"),
        {"clean_reviews", "split_reviews", "describe_reviews"} | SCORES,
    ),
    "another column for a task": (
        lambda raw: raw["data"]["columns"].update(kind="more"),
        {"clean_reviews", "split_reviews", "describe_reviews", "label_reviews:topic", "train_expert:x", "predict:x"}
        | {"prepare_base:base-topic", "predict:base-topic", "prepare_base:asked-topic.base", "predict:zero"}
        | {"tokenise:base-topic", "tokenise:asked-topic.base"} | TRAINED_T | BOTH | SCORES,
    ),
    "a model more": (add("models", {"name": "other", "source": "local", "path": "other"}), TABLES),
    "a reference more": (add("references", {"name": "majority", "model": "majority", "task": "topic"}), {"fit_baseline:majority"} | SCORES),
    "steps of a training on several tasks": (lambda raw: raw["references"][3].update(steps=3), BOTH | SCORES),
    "a training on several tasks renamed": (
        lambda raw: raw["references"][3].update(name="all-tasks"),
        {"train_tasks:all-tasks", "predict_tasks:all-tasks"} | SCORES,  # both reuse results
    ),
    "a replicate more of a training on several tasks": (
        lambda raw: raw["references"][3].update(replicates=2),
        {"train_tasks:both@2", "predict_tasks:both@2"} | SCORES,
    ),
    "a reference's steps": (lambda raw: raw["references"][1].update(steps=3), {"train_expert:all", "predict:all"} | SCORES),
    "a reference less": (lambda raw: raw["references"].pop(0), SCORES),
    "a blend more": (add("blends", {"name": "log", "method": "log_vote", "members": ["t-*"]}), {"blend:log"} | SCORES),
    "a reference on frozen features": (
        add("references", {"name": "probe", "model": "tiny", "train": "probe", "task": "mood"}),
        {"fit_probe:probe"} | SCORES,
    ),
    "a blend less": (lambda raw: raw["blends"].clear(), SCORES),
    "a merge's value more": (
        lambda raw: raw["merges"][0].update(density=[0.5, 0.7, 0.9]),
        {"merge:ties-density0.7", "predict:ties-density0.7"} | SCORES,
    ),
    "a merge's value less": (lambda raw: raw["merges"][0].update(density=[0.5]), SCORES),
    "a merge's other key": (
        lambda raw: raw["merges"][1].update(weight={"t-0": 1.0, "t-1": 2.0}),
        {"merge:linear-weight_per_member", "predict:linear-weight_per_member"} | SCORES,
    ),
    "a merge's members": (
        lambda raw: raw["merges"][0].update(members=["m-*", "x"]),
        each("merge", "ties-density0.5", "ties-density0.9") | each("predict", "ties-density0.5", "ties-density0.9")
        | {"diagnose_members"} | SCORES,
    ),
    "a merge over tasks, less": (lambda raw: raw["merges"].pop(), SCORES | {"diagnose_members"}),
    "weights of a merge over tasks": (
        lambda raw: raw["merges"].append({"method": "linear", "members": ["m-*", "t-*"], "weight": [{"mood": 1, "topic": 2}, 0.5]}),
        each("merge_tasks", "linear-weight_per_member", "linear-weight0.5")
        | each("predict_tasks", "linear-weight_per_member", "linear-weight0.5") | SCORES,
    ),
    "tasks of a merge": (
        lambda raw: raw["merges"].append({"method": "karcher", "members": ["x", "t-0"]}),
        {"merge_tasks:karcher", "predict_tasks:karcher", "diagnose_members"} | SCORES,
    ),
    "a model trained on both tasks": (
        add("references", {"name": "two", "model": "tiny", "train": "tasks", "steps": 2}),
        {"train_tasks:two", "predict_tasks:two"} | SCORES,
    ),
    "a task's prompt": (
        lambda raw: raw["tasks"][1].update(prompt={"template": "{review} What is it?"}),
        {"prepare_base:asked-topic.base", "tokenise:asked-topic.base", "predict:zero"} | TABLES | {"score"},
    ),
    "a merge entry more": (
        add("merges", {"method": "slerp", "members": ["m-0", "x"], "t": [0.5]}),
        {"merge:slerp-t0.5", "predict:slerp-t0.5", "diagnose_members"} | SCORES,
    ),
    "a replicate more of all": (
        lambda raw: raw.update(replicates=2),
        each("train_expert", "m-0@2", "m-1@2", "x@2", "t-0@2", "t-1@2", "all@2") | each("merge", *AGAIN) | {"blend:vote@2"}
        | {"merge_tasks:karcher@2", "predict_tasks:karcher@2"}
        | each("predict", "m-0@2", "m-1@2", "x@2", "t-0@2", "t-1@2", "all@2", *AGAIN)
        | {"train_tasks:both@2", "predict_tasks:both@2"} | SCORES,
    ),
    "a replicate more of one expert": (on_expert("x", replicates=2), {"train_expert:x@2", "predict:x@2"} | SCORES),
    "replicates of one reference": (
        lambda raw: raw["references"][1].update(replicates=3),
        each("train_expert", "all@2", "all@3") | each("predict", "all@2", "all@3") | SCORES,
    ),
    "what is compared": (lambda raw: raw.update(compare={"metric": "macro_f1", "margin": 0.02}), TABLES),
    "what is kept, none": (lambda raw: raw.update(keep="none"), {"leaderboard", "compare", "write_report"}),
    "what is kept, all": (
        lambda raw: raw.update(keep="all"),
        {"merge:linear", "merge_tasks:karcher"} | each("merge", "ties-density0.5", "ties-density0.9") | {"leaderboard", "compare", "write_report"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", EDITS)
def test_an_edit_plans_what_it_can_change(finished, what):
    edit, expected = EDITS[what]
    raw = copy.deepcopy(EXPERIMENT)
    edit(raw)
    (finished / "two.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    assert planned(finished) == expected


def test_the_split_and_the_seed_plan_all_but_the_cleaning(finished):
    for key, value in (("split", {"mode": "official-clean", "valid": 0.3}), ("seed", 6)):
        (finished / "two.yaml").write_text(yaml.safe_dump(EXPERIMENT | {key: value}, sort_keys=False))
        rules = {job.partition(":")[0] for job in planned(finished)}
        expected = {
            "split_reviews",
            "label_reviews",
            "describe_reviews",
            "prepare_base",
            "tokenise",
            "train_expert",
            "train_tasks",
            "predict",
            "predict_tasks",
        }
        expected |= {"fit_baseline", "blend", "merge", "merge_tasks", "diagnose_members"}
        assert rules == expected | SCORES


DELETED = {
    "data/test.parquet": set(),
    "data/tasks/mood/labels.parquet": set(),
    "data/tasks/mood/task.json": set(),
    "data/split.json": set(),
    "data/tokens": set(),
    "models/m-0": set(),
    "predictions/m-0.parquet": set(),
    "scores": set(),
    "leaderboard.csv": TABLES,
    "verdict.md": {"compare", "write_report", "export"},
    "report": {"write_report"},
    "export": {"export"},
    "diagnostics/members.csv": {"diagnose_members"},
}  # fmt: skip
"""File or folder -> jobs that run once it is deleted: its maker and what follows where it is a result, else nothing."""


@pytest.mark.parametrize("path", DELETED)
def test_a_deleted_file_is_made_again_or_changes_nothing(finished, path, tmp_path):
    (finished / "two.yaml").write_text(yaml.safe_dump(EXPERIMENT, sort_keys=False))
    place = finished / "results/two" / path
    if place.exists():
        shutil.move(place, tmp_path / "kept")
    try:
        assert planned(finished) == DELETED[path]
    finally:
        if (tmp_path / "kept").exists():
            shutil.move(tmp_path / "kept", place)


def test_a_new_expert_makes_a_deleted_split_again(finished, tmp_path):
    """A job's reads are declared: it never starts without them."""
    raw = copy.deepcopy(EXPERIMENT)
    raw["experts"].append({"name": "y", "task": "mood", "steps": 2})
    (finished / "two.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    new = {"train_expert:y", "predict:y"} | BOTH | SCORES
    split = {"split_reviews", "describe_reviews"}
    for name, makers in (("valid.parquet", split), ("tasks/mood/labels.parquet", {"label_reviews:mood"})):
        place = finished / "results/two/data" / name
        shutil.move(place, tmp_path / "kept")
        try:
            assert planned(finished) == makers | new
        finally:
            shutil.move(tmp_path / "kept", place)
