"""Check that documents tell the truth: commands, links, pictures, the notebook, and files that other services read."""

import itertools
import json
import random
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import polars as pl
import pytest
import yaml

from conftest import ROOT, Project, fresh

DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "config/README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
TEXTS = {str(f.relative_to(ROOT)): f.read_text() for f in DOCUMENTS}
MARKS = ("needs a cluster", "needs the network")
# The tests, the demonstration and `.ci/run` themselves.
ELSEWHERE = ("make setup", "make demo", "make test", "make check", "make bench")
STARTS = ("make ", ".venv/bin/", "snakemake ", "git ", "python ")
WRITTEN = {
    "config/….yaml": "config/demo.yaml",
    "config/mine.yaml": "config/demo.yaml",
    "results/one": "results/demo",
    "results/two": "results/other",
}


def blocks() -> list[tuple[str, str]]:
    """Yield (document, command) of indented and fenced shell blocks, without marked ones."""
    found = []
    for name, text in TEXTS.items():
        fence = None
        for line in text.splitlines():
            if line.startswith("```"):
                fence = None if fence is not None else line[3:]
            elif (fence is None and line.startswith("    ")) or fence in ("", "bash", "sh"):
                command, _, comment = line.strip().partition("  #")
                if command.startswith(STARTS) and not any(mark in comment for mark in MARKS):
                    found.append((name, command.strip()))
    return found


def inline() -> list[tuple[str, str]]:
    """Yield (document, command) of Snakemake's commands within sentences."""
    found = []
    for name, text in TEXTS.items():
        prose = re.sub(r"```.*?```", "", text, flags=re.S)
        for command in re.findall(r"`((?:\.venv/bin/)?snakemake [^`]+)`", prose):
            found.append((name, command))
    return found


@pytest.fixture(scope="module")
def ready(demo, tmp_path_factory) -> Project:
    """Run the demonstration with the documents' environment, and a second experiment on the same reviews."""
    project = demo.copy(tmp_path_factory.mktemp("docs") / "project")
    if not (project.folder / ".venv").exists():
        (project.folder / ".venv").symlink_to(Path(sys.executable).parent.parent)
    subprocess.run(["git", "init", "-q"], cwd=project.folder, check=True)
    other = project.folder / "results/other"
    other.mkdir()
    for file in ("leaderboard.parquet", "experiment.yaml"):
        (other / file).write_bytes((project.folder / "results/demo" / file).read_bytes())
    (other / "data").symlink_to(project.folder / "results/demo/data")
    return project


def as_meant(command: str) -> str:
    """Replace a document's file names by files that exist here."""
    for written, meant in WRITTEN.items():
        command = command.replace(written, meant)
    return command


def run(project: Project, command: str) -> str:
    done = subprocess.run(
        ["bash", "-c", as_meant(command)],
        cwd=project.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}"
    return done.stdout


@pytest.mark.parametrize(("document", "command"), [b for b in blocks() if not b[1].startswith(ELSEWHERE)])
def test_a_command_works(document, command, ready):
    said = run(ready, command)
    if "--report" in command:
        with zipfile.ZipFile(ready.folder / "report.zip") as made:
            names, page = made.namelist(), made.read("report/report.html").decode()
        assert any(n.endswith("/index.html") for n in names) and any(n.endswith("pareto-0.svg") for n in names)
        recipes = len(list((ready.folder / "results/demo/merges").iterdir()))
        assert sum(n.endswith("/mergekit.yaml") for n in names) == recipes
        for word in ("Leaderboard", "Comparisons", "Recipes", "Report", "dare_linear", "selected on validation"):
            assert word in page
    if command.startswith(".venv/bin/snakemake -n") and "demo" in command:
        assert "Nothing to be done" in said


# docs/tasks.md's own lines are run by test_tasks_workflow.py, which has a merge over several tasks.
@pytest.mark.parametrize(
    "document", [n for n, text in TEXTS.items() if "from transformers import" in text and n != "docs/tasks.md"]
)
def test_the_lines_that_use_a_merge_work(document, ready):
    run(ready, ".venv/bin/snakemake export --configfile config/demo.yaml")
    merge = min(f.parent for f in (ready.folder / "results/demo/export").glob("*/model.json"))
    for code in re.findall(r"```python\n(from transformers import.*?)```", TEXTS[document], re.S):
        said = run(ready, f"{sys.executable} -c {shlex.quote(code.replace('<merge>', merge.name))}")
        assert "'label': " in said and "'score': " in said


@pytest.mark.parametrize(("document", "command"), sorted(set(inline())))
def test_a_command_in_a_sentence_is_understood(document, command, ready):
    """Run a command as a dry run, of the demonstration if it names no other experiment."""
    words = shlex.split(as_meant(command).replace("…", "demo"))[1:]
    if "--unlock" in words or "apptainer" in words or "--report" in words:
        words = [w for w in words if w not in ("--sdm", "apptainer")]  # needs Apptainer
    if "--configfile" not in words:
        words += ["--configfile", "config/demo.yaml"]
    if not {"--unlock", "--report", "-n"} & set(words):
        words.append("-n")
    subprocess.run(["ln", "-sfn", "profiles/slurm", "slurm"], cwd=ready.folder, check=True)
    ready.snakemake(*words)


def test_every_make_target_that_is_named_exists_and_explains_itself():
    targets = dict(re.findall(r"^([a-z]+):.*## (.+)", (ROOT / "Makefile").read_text(), re.M))
    named = {word for text in TEXTS.values() for word in re.findall(r"(?:`|    )make ([a-z]+)", text)}
    assert named <= targets.keys()
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name, meaning in targets.items():
        assert re.search(rf"make {name} +{re.escape(meaning)}", listed)


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name):
    for link in re.findall(r"\]\(([^)#\s]+)", TEXTS[name]):
        if not link.startswith("http"):
            assert (ROOT / name).parent.joinpath(link).exists(), link


def test_the_notebook_runs_and_agrees_with_the_workflow(ready):
    cells = json.loads((ROOT / "docs/results.ipynb").read_text())["cells"]
    code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    check = """
row = results.comparisons.filter(candidate=merge, against=expert).to_dicts()[0]
assert abs(by_text.mean() - row["accuracy_difference"]) < 1e-6, (by_text.mean(), row)
assert low < by_text.mean() < high and chart.to_dict()
"""
    assert all(not c.get("outputs") for c in cells)
    subprocess.run([sys.executable, "-c", code + check], cwd=ready.folder / "docs", check=True)


# ── README ──


def test_your_own_csv_gets_an_answer(tmp_path):
    """Run README's experiment file unchanged, with a table as it describes."""
    (text,) = re.findall(r"```yaml\n(name: mine.*?)```", TEXTS["README.md"], re.S)
    project = fresh(tmp_path / "project")
    (project.folder / "config/mine.yaml").write_text(text)
    draw = random.Random(1)
    words = {"pos": "good fine solid quick quiet", "neg": "bad loose slow loud broken"}
    lines = ["Review Text,Product Name,Label"]
    for _ in range(600):
        label, product = draw.choice(["pos", "neg"]), draw.choice(["kettle", "toaster"])
        said = draw.choices(words[label].split(), k=3) + draw.choices(
            ["it", "the", "after", "one", "week", "two", "days"], k=6
        )
        lines.append(f"The {product} is {' '.join(draw.sample(said, 9))},{product},{label}")
    (project.folder / "data").mkdir(exist_ok=True)
    (project.folder / "data/mine.csv").write_text("\n".join(lines))
    project.snakemake("--cores", "2", "--configfile", "config/mine.yaml")
    results = project.folder / "results/mine"
    assert re.search(r"Replace large-on-all\? (Yes|No|Not shown)\.", (results / "verdict.md").read_text())
    page = (results / "report/index.html").read_text()
    assert "reviews of kitchen appliances" in page and "drug" not in page.lower()
    parts = pl.read_parquet(results / "parts.parquet")
    assert set(parts["column"]) == {"product"} and set(parts["part"]) == {"kettle", "toaster"}
    (card, *_) = (results / "export").glob("*/README.md")
    assert "for the classification of reviews of kitchen appliances" in " ".join(card.read_text().split())
    assert "drug" not in card.read_text().lower()


def test_readme_is_short_and_its_picture_small():
    assert len(TEXTS["README.md"].splitlines()) <= 150
    assert (ROOT / "docs/images/answer.svg").stat().st_size <= 60_000


# ── The picture of the workflow ──


def drawn(text: str) -> set[tuple[str, str]]:
    block, *_ = re.findall(r"```mermaid\n(.*?)```", text, re.S)  # the workflow's comes first
    arrows = set()
    for line in block.splitlines():
        words = re.findall(r"\w+", re.sub(r"\|.*?\||\[.*?\]", "", line))
        if "-->" in line:
            arrows |= set(itertools.pairwise(words))
    return arrows


def reachable(arrows: set[tuple[str, str]]) -> set[tuple[str, str]]:
    found = set(arrows)
    while more := {(a, d) for a, b in found for c, d in found if b == c} - found:
        found |= more
    return found


def graph(project: Project, config: str) -> set[tuple[str, str]]:
    text = project.snakemake("all", "export", "--forceall", "--rulegraph", "mermaid-js", "--configfile", config)  # fmt: skip
    names = dict(re.findall(r"(id\d+)\[(\w+)\]", text))
    return {
        (names[a], names[b]) for a, b in re.findall(r"(id\d+) --> (id\d+)", text) if names[b] not in ("all", "report")
    }


def test_the_picture_is_the_workflow(tmp_path):
    """Each arrow is a dependency of some experiment, and all dependencies follow from the arrows."""
    project = fresh(tmp_path / "project")
    some = yaml.safe_load((project.folder / "config/config.yaml").read_text())
    some["experts"].append({"name": "taken", "model": some["base"]})
    some["merges"].append({"method": "linear", "members": ["taken", "shard-0"]})
    some["references"].append({"name": "probe", "model": some["base"], "train": "probe"})
    (project.folder / "config/taken.yaml").write_text(yaml.safe_dump(some))
    llama = yaml.safe_load((project.folder / "config/demo.yaml").read_text())
    llama["models"][0]["architecture"] = "llama"
    llama["merges"] = [{"method": "moe", "members": ["pain", "acne"]}]
    (project.folder / "config/llama.yaml").write_text(yaml.safe_dump(llama))
    tasks = {**llama, "tasks": [{"name": "mood", "label": "sentiment"}, {"name": "stars", "label": "rating"}]}
    tasks["models"] = [{"name": "tiny", "source": "scratch", "architecture": "t5", "family": "text2text"}]
    tasks["base"] = "tiny"
    tasks["experts"] = [{"name": "m", "task": "mood"}, {"name": "s", "task": "stars"}]
    tasks["merges"] = [{"method": "linear", "members": ["*"]}]
    tasks["references"] = [{"name": "joint", "model": "tiny", "train": "tasks"}]
    tasks["blends"] = []
    (project.folder / "config/tasks.yaml").write_text(yaml.safe_dump(tasks))
    real = set().union(*(graph(project, f"config/{c}.yaml") for c in ("demo", "taken", "llama", "tasks")))
    arrows = drawn(TEXTS["docs/architecture.md"])
    shown = {rule for arrow in arrows for rule in arrow}
    assert arrows <= real, "drawn, but no dependency"
    left_out = {arrow for arrow in real if set(arrow) <= shown} - reachable(arrows)
    assert left_out == set(), "dependencies that do not follow from the picture"
    assert shown == {rule for arrow in real for rule in arrow}


# ── Files that other services read ──


def test_the_hooks_pass_here(tmp_path):
    project = fresh(tmp_path / "project")
    (project.folder / ".venv").symlink_to(Path(sys.executable).parent.parent)
    for command in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", *command], cwd=project.folder, check=True)
    hooks = [sys.executable, "-m", "pre_commit", "run", "--all-files"]
    said = subprocess.run(hooks, cwd=project.folder, capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr
    assert said.stdout.count("Passed") == 5
    project.edit("workflow/scripts/mllm/experiment/schema.py", "margin: Annotated[float, Field(ge=0)] = 0.01", "margin: Annotated[float, Field(ge=0)] = 0.02")  # fmt: skip
    said = subprocess.run(hooks, cwd=project.folder, capture_output=True, text=True)
    assert said.returncode and "differs from mllm/experiment/schema.py). Fix: run make envs" in said.stdout


def test_the_catalogs_file():
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert usage["report"] is True
    assert usage["software-stack-deployment"]["conda"] is any(
        re.search(r"^ +conda:", f.read_text(), re.M) for f in (ROOT / "workflow/rules").glob("*.smk")
    )


def test_every_key_of_an_experiment_is_explained():
    schema = json.loads((ROOT / "config/experiment.schema.json").read_text())
    page = TEXTS["docs/experiment.md"]
    for model in [schema, *schema["$defs"].values()]:
        assert model["description"]
        for key, value in model["properties"].items():
            assert "const" in value or f"| `{key}` |" in page
            described = value.get("description") or "$ref" in json.dumps(value) or "const" in value
            assert described, f"{model['title']}.{key} has no meaning"
