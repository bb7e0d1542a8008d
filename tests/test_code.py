"""Check that an edit of the code makes exactly those jobs stale whose results it can change."""

import ast
import json
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from conftest import ROOT, SCRIPTS
from mllm.core import code_digest

MEANING = code_digest._meaning
HASH = r"-[0-9a-f]{10}$"  # at the end of merges' names
SCRATCH = {"source": "scratch", "max_length": 32}
EXPERIMENT = {
    "name": "codes",
    "data": {"source": "synthetic"},
    "tasks": [{"name": "sentiment", "label": "sentiment"}, {"name": "rating", "label": "rating"}],
    "models": [
        {"name": "llama", "architecture": "llama", **SCRATCH},
        {"name": "asker", "architecture": "llama", "family": "causal", **SCRATCH},
        {"name": "t5", "architecture": "t5", "family": "text2text", **SCRATCH},
        {"name": "bert", "source": "hub", "id": "owner/bert", "revision": "607a30d783dfa663caf39e06633721c8d4cfcd7e"},
        {"name": "tuned", "source": "local", "path": "tuned"},
    ],
    "base": "llama",
    "experts": [
        {"name": "shard", "parts": 2, "task": "sentiment"},
        {"name": "taken", "model": "tuned", "task": "sentiment"},
        {"name": "stars", "task": "rating"},
    ],
    "merges": [
        {"method": "linear", "members": ["shard-*"]},
        {"method": "ties", "members": ["shard-*"], "density": 0.5, "convention": ["mergekit", "paper"]},
        {"method": "moe", "members": ["shard-*"]},
        {"method": "ties", "members": ["shard-*", "stars"], "density": 0.3},
    ],
    "blends": [{"name": "vote", "method": "soft_vote", "members": ["shard-*"]}],
    "references": [
        {"name": "asked", "model": "asker", "train": "none", "task": "sentiment"},
        {"name": "taught", "model": "t5", "train": "all", "task": "sentiment"},
        {"name": "bert-on-all", "model": "bert", "train": "all", "task": "sentiment"},
        {"name": "tfidf", "model": "tfidf", "task": "sentiment"},
        {"name": "probe", "model": "llama", "train": "probe", "task": "sentiment"},
        {"name": "together", "model": "llama", "train": "tasks"},
    ],
    "keep": "winners",
}  # fmt: skip
"""A job of every rule with a model, of every family, of each way to make a base."""

EVERY_MERGE = {"merge", "merge_tasks", "mix_experts", "export"}
PROMPTED = {
    "tokenise:asker-sentiment.base",
    "tokenise:t5-sentiment.base",
    "prepare_base:asker-sentiment.base",
    "prepare_base:t5-sentiment.base",
    "predict:asked",
    "predict:taught",
    "train_expert:taught",
}
CAUSAL = {"prepare_base:asker-sentiment.base", "tokenise:asker-sentiment.base", "predict:asked"}
JUDGED = {"score", "leaderboard", "compare", "write_report"}
TRAINED = {"train_expert", "train_tasks"}
MODELS = {"prepare_base", "take_expert"} | TRAINED

EDITS = {
    "a constant of the causal family": ("models/families/causal.py", "WORTH_KEEPING = 32", "WORTH_KEEPING = 64", CAUSAL),
    "prompts": ("models/prompts.py", 'BETWEEN = "\\n\\n"', 'BETWEEN = "\\n"', PROMPTED),
    "the labels' tree": ("models/label_tree.py", "result = [0]", "result = [1]", PROMPTED),
    "scores of prompted labels": ("models/language_model_scorers.py", "float32: 1e-3", "float32: 1e-2", PROMPTED),
    "priors of prompts": ("models/prompt_priors.py", '("N/A", ', '("n/a", ', PROMPTED),
    "a batch size of prediction": ("prediction/run_model.py", '"cpu": 1024', '"cpu": 2048', {"predict", "predict_tasks", "export", "fit_probe"}),
    "the measured speed": ("prediction/speed.py", "8192", "4096", {"predict", "predict_tasks", "fit_probe"}),
    "heads on one backbone": ("prediction/heads.py", "self._found = None", "self._found = 1 and None", {"predict_tasks"}),
    "merges over several tasks": ("merging/over_tasks.py", "> 1:", "> 2:", {"merge_tasks", "export"}),
    "how a training is watched": ("models/training_rows.py", "VALIDATION = 1000", "VALIDATION = 10", TRAINED),
    "how states are kept": ("models/frozen_states.py", "AT_ONCE = 32", "AT_ONCE = 16", TRAINED),
    "heads in training": ("models/joint.py", "-torch.inf", "-1.0", {"train_tasks"}),
    "adapters": ("models/lora.py", '"all-linear"', '"all"', TRAINED),
    "models made from scratch": (
        "models/scratch.py", "4 * width", "2 * width",
        {"prepare_base:base-sentiment", "prepare_base:base-rating", "prepare_base:asker-sentiment.base", "prepare_base:t5-sentiment.base"},
    ),
    "models from the hub": ("models/pretrained.py", '"right"', '"left"', {"prepare_base:bert-sentiment.base", "take_expert"}),
    "the merge": ("merging/merge.py", "own = {", "own = set() | {", EVERY_MERGE),
    "the paper's TIES": ("merging/methods/ties_paper.py", "import torch", "import torch\nEDITED = 1", {"merge:ties_paper-density0.5", "export"}),
    "mixtures of experts": ("merging/mixture.py", "SHARED_SCALE = 0.1", "SHARED_SCALE = 0.2", {"mix_experts", "export"}),
    "mergekit's parts for mixtures": ("merging/mergekit_private/mixtures.py", "from mergekit.options", "EDITED = 1\nfrom mergekit.options", {"mix_experts", "export"}),
    "what may be merged": ("merging/compatibility.py", '"problem_type", ', "", EVERY_MERGE | {"take_expert", "diagnose_members"}),
    "the split": ("data/splitting.py", "import polars as pl", "import polars as pl\nEDITED = 1", {"split_reviews", "label_reviews", "mix_experts", "export"} | TRAINED),
    "blends": ("prediction/blending.py", "import numpy as np", "import numpy as np\nEDITED = 1", {"blend"}),
    "what is said of texts": ("data/text_statistics.py", "import polars as pl", "import polars as pl\nEDITED = 1", {"describe_reviews", "score"}),
    "a metric": ("evaluation/metrics.py", "import numpy as np", "import numpy as np\nEDITED = 1", JUDGED | {"export"}),
    "intervals": ("evaluation/bootstrap.py", "0.025, 0.975", "0.05, 0.95", {"score"}),
    "the verdict": ("evaluation/verdict.py", "no worse than", "not worse than", {"compare"}),
    "a chart": ("reporting/row_chart.py", "import polars as pl", "import polars as pl\nEDITED = 1", {"write_report"}),
    "the model card": ("reporting/model_card.py", "from typing import", "EDITED = 1\nfrom typing import", {"export"}),
    "the experiment's schema": ("experiment/training_entries.py", "BASELINES = (", "BASELINES = (*", JUDGED | {"import_predictions"}),
    "a check of the experiment": ("experiment/checks/cross.py", 'f"base-{task}"', 'f"basis-{task}"', set()),
    "a check's message": ("experiment/checks/merges.py", "expected", "wanted", set()),
    "loading with checks": ("experiment/load.py", "problems += shape", "problems += [] + shape", set()),
    "an error text of prediction": ("prediction/prediction_tables.py", "rerun predict", "run predict", set()),
    "a log line of prediction": ("prediction/run_model.py", "at once: halved", "at once: in halves", set()),
    "an error text of prompts": ("models/prompts.py", "two classes have the same word", "two classes share a word", set()),
    "a --help": ("prediction/script_arguments.py", "layers are spread", "layers spread", set()),
    "Slurm": ("execution/slurm_executor.py", "import ", "EDITED = 1\nimport ", set()),
    "the console": ("execution/log_format.py", "import ", "EDITED = 1\nimport ", set()),
    "resources": ("execution/resources.py", "import ", "EDITED = 1\nimport ", set()),
    "what the machine has": ("core/compute.py", '"/dev/nvidiactl"', '"/dev/nvidia0"', set()),
    "log lines": ("core/messages.py", "> 10:", "> 20:", set()),
    "words of errors": ("core/wording.py", "[:20]", "[:30]", set()),
    "errors": ("core/errors.py", "class Failure(Exception)", "class Failure(RuntimeError)", set()),
    "copies on a node": ("core/node_cache.py", "[:16]", "[:12]", set()),
    "a docstring": ("prediction/run_model.py", "Score texts in batches", "Score reviews in batches", set()),
    "threads": (
        "core/threads.py", "interop_threads(1)", "interop_threads(2)",
        MODELS | EVERY_MERGE | {"diagnose_members", "tokenise", "predict", "predict_tasks", "fit_baseline", "fit_probe", "blend", "score"},
    ),
}  # fmt: skip
"""What is edited -> file, old text, new text, the jobs that become stale: ``rule``, or ``rule:name`` where not all of its jobs do."""


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """Return (rule, what the job makes, the names that its code digest covers) of all jobs, by the real rules."""
    folder = tmp_path_factory.mktemp("jobs")
    (folder / "tuned").mkdir()
    (folder / "workflow").symlink_to(ROOT / "workflow")
    (folder / "codes.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    done = subprocess.run(
        [sys.executable, ROOT / "tests/job_codes.py", ROOT, folder / "codes.yaml"],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    found = [(job["rule"], job["of"], tuple(job["code"])) for job in json.loads(done.stdout)]
    return [*found, ("import_predictions", "", ("import_predictions",))]


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copied") / "scripts"
    shutil.copytree(SCRIPTS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def scripts(copied, monkeypatch):
    """Return a copy of the scripts, whose files are read again after a test's edit."""
    edited = {}

    def edit(path, old, new):
        file = (copied / "mllm" / path).resolve()
        text = edited.setdefault(file, file.read_text())
        assert old in text, f"{old!r} is not in {path}: the table's row needs another text"
        file.write_text(file.read_text().replace(old, new, 1))

    monkeypatch.setattr(code_digest, "SCRIPTS", copied)
    monkeypatch.setattr(
        code_digest, "_meaning", lambda path: (MEANING.__wrapped__ if path in edited else MEANING)(path)
    )
    yield edit
    for file, text in edited.items():
        file.write_text(text)


@pytest.fixture
def stale(jobs, scripts):
    """Return the stale jobs: ``rule`` if all of the rule's jobs are, else ``rule:name``."""
    before = {names: code_digest.code_digest(*names) for *_, names in jobs}

    def found():
        after = {names: code_digest.code_digest(*names) for names in before}
        changed = {(rule, of) for rule, of, names in jobs if after[names] != before[names]}
        whole = {rule for rule, _ in changed} - {rule for rule, of, _ in jobs if (rule, of) not in changed}
        return {rule if rule in whole else f"{rule}:{re.sub(HASH, '', of)}" for rule, of in changed}

    return found


@pytest.mark.parametrize("what", EDITS)
def test_an_edit_makes_stale_what_it_can_change(stale, scripts, what):
    path, old, new, expected = EDITS[what]
    scripts(path, old, new)
    assert stale() == expected


def test_comments_and_docstrings_mean_nothing(stale, scripts, copied):
    for path in copied.rglob("*.py"):
        if '"""' in path.read_text():
            scripts(path, '"""', '"""Another word. ')
            path.write_text("# a comment\n\n" + path.read_text() + "\n\n# and one more\n")
    assert stale() == set()


def test_an_edit_of_the_script_itself_counts(stale, scripts):
    scripts("../blend.py", "logp = [", "logp = 1 * [")
    assert stale() == {"blend"}


def test_every_job_with_a_script_has_its_digest(jobs):
    without = {"download_model", "download_reviews"}  # their outputs are named by their content
    made = {rule for rule, *_ in jobs}
    scripts = (
        {p.stem for p in SCRIPTS.glob("*.py")}
        - without
        - {"grid", "plan", "prune", "compare_experiments", "download_reviews"}
    )
    assert scripts <= made, f"no digest of their code in the rules: {sorted(scripts - made)}"
    for rule, _, (script, *_) in jobs:
        assert (SCRIPTS / f"{script}.py").exists(), f"{rule}: {script}"


@pytest.mark.parametrize("path", code_digest.NO_RESULT)
def test_modules_that_change_no_result(path):
    """A module that does not count may import only others of its kind, so that it hides nothing that counts."""
    assert len(code_digest.NO_RESULT[path]) > 20, "say why"
    _, imports = MEANING(SCRIPTS / path)
    inside = {p.relative_to(SCRIPTS).as_posix() for p in imports} - {"mllm/core/files.py"}
    assert inside <= code_digest.NO_RESULT.keys()


def test_no_result_is_worded_by_the_words_of_errors():
    """A table, verdict or report written with them would not follow edits of them."""
    for room in ("evaluation", "reporting", "data", "models", "merging"):
        for path in (SCRIPTS / "mllm" / room).rglob("*.py"):
            tree = ast.parse(path.read_text())
            used = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module == "mllm.core.wording"]
            assert not used, f"{path}: results are written here; take another function than core/wording.py's"


def test_a_rule_that_reads_reviews_says_what_they_follow_from():
    """Their files are ancient inputs, whose times make no job stale."""
    rules = "".join(p.read_text() for p in sorted((ROOT / "workflow/rules").glob("*.smk")))
    found = {}
    for name, body in re.findall(r"^ *rule (\w+):\n(.*?)(?=^\S|\Z)", rules, re.M | re.S):
        if re.search(r"reads\(|_reads\)|by_meaning\(", body):
            found[name] = "reviews=" in body
    assert {"predict", "train_expert", "fit_baseline"} <= found.keys()
    assert [name for name, said in found.items() if not said] == []
