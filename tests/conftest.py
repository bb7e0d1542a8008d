"""Shared parts of tests: the project in a separate folder, real Snakemake, the demonstration run once."""

import atexit
import contextlib
import functools
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from filelock import FileLock

import forked_snakemake
import opened_files

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "workflow/scripts"
REAL = ROOT.parent / "shared/data"

pytest_plugins = ["slurm_cluster"]

# pytest's own process must not reach the network either.
os.environ.update(
    HF_HUB_OFFLINE="1", OMP_WAIT_POLICY="passive", MLLM_ALLOW_CPU="1"
)  # the tests' Slurm has GPUs in name only


def pytest_configure(config: pytest.Config) -> None:
    """Hide the GPU from all tests except those marked ``gpu``, which run separately: ``pytest -m gpu``."""
    if config.getoption("markexpr") != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no GPU here")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first, so that no worker ends with one; Slurm's tests take as long as all others."""
    order = {name: i for i, name in enumerate(LONGEST)}
    for item in items:
        runs = WHOLE_RUNS & set(getattr(item, "fixturenames", ()))
        if runs or item.path.name in LONG_FILES or getattr(item, "originalname", "") in LONG_TESTS:
            item.add_marker("long")
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


LONGEST = (
    "test_slurm.py", "test_slurm_runs.py", "test_workflow.py", "test_slurm_groups.py", "test_models.py", "test_real_rows.py", "test_docs.py", "test_other_families.py",
    "test_scorers.py", "test_edits.py", "test_tables.py", "test_merging.py", "test_scoring.py", "test_calibration.py",
    "test_extending.py", "test_inference.py", "test_write_report.py", "test_families.py", "test_import_predictions.py",
    "test_interrupts.py", "test_mix_experts.py", "test_merge.py", "test_killed.py", "test_local_limits.py",
)  # fmt: skip
"""Files of half a minute and more, the longest first (`make test` shows the slowest tests)."""
WHOLE_RUNS = {"demo", "project", "finished", "changed", "cluster", "real_rows"}
"""Fixtures of tests that run Snakemake or need a finished run: `make test-fast` leaves them out."""
LONG_TESTS = {
    "test_a_bad_table_is_one_clear_error",
    "test_a_base_is_the_same_bytes_again_and_another_with_another_seed",
    "test_a_card_too_small_for_one_review_is_an_error",
    "test_a_kill_at_any_moment_leaves_no_output_or_a_whole_one",
    "test_a_killed_training_goes_on_and_ends_with_the_same_bytes",
    "test_a_language_model_is_asked_from_its_folder_to_its_table",
    "test_a_prediction_finds_its_tokens",
    "test_a_run_from_elsewhere_is_refused_in_one_line",
    "test_a_scorer_and_its_training_on_one_gpu",
    "test_a_table_of_texts_alone_is_described_too",
    "test_a_tampered_file_is_refused",
    "test_a_text_in_validation_does_not_see_its_own_labels",
    "test_a_training_that_reads_otherwise_does_not_go_on_from_the_same_weights",
    "test_a_value_that_validation_lacks_is_no_error",
    "test_a_wrong_column_is_found_before_any_job",
    "test_a_wrong_experiment_file_is_one_message",
    "test_a_zero_shot_reference_in_the_workflow",
    "test_any_model_folder_is_taken_with_its_weights_or_refused",
    "test_any_table_is_read_and_no_row_is_lost",
    "test_blends_and_baselines",
    "test_calibration_errors_are_compared_without_what_resampling_adds",
    "test_corrections_are_statsmodels",
    "test_druglib_s_columns_under_all_headers",
    "test_each_role_is_compared_with_its_files_in_both_directions",
    "test_every_merge_method_computes_where_it_is_told_to",
    "test_every_script_explains_itself_quickly",
    "test_family_wise_error_at_each_border",
    "test_intervals_cover_the_truth_as_often_as_they_say",
    "test_intervals_of_the_calibration_error_cover_it",
    "test_jobs_ask_for_a_gpu_where_they_compute_on_one",
    "test_labels_scored_together_are_as_each_by_itself",
    "test_luck_grows_slowly_but_without_end",
    "test_mergekit_yaml_makes_the_same_bits",
    "test_mixtures_are_made_scored_and_exported",
    "test_no_serious_accessibility_fault",
    "test_nothing_fails_and_no_request_leaves_the_page",
    "test_nothing_of_the_others_is_looked_at",
    "test_one_clear_error_and_no_folder",
    "test_optimism_is_what_choosing_the_best_of_equals_adds",
    "test_out_of_fold_nobody_is_flattered",
    "test_paired_differences_cover_the_truth",
    "test_permuted_labels_and_half_written_models_are_refused",
    "test_processes_that_share_a_training_end_where_one_would",
    "test_rank_sets_hold_all_true_ranks_as_often_as_they_say",
    "test_sections_show_the_tables_numbers",
    "test_smaller_parts_have_the_same_loss_and_gradients",
    "test_split_and_label_reviews_say_what_is_wrong_and_write_nothing",
    "test_stacking_is_scikit_learns_logistic_regression_with_the_c_of_its_cross_validation",
    "test_strange_text_stays_text",
    "test_systems_are_models_over_tasks_and_what_is_used_together",
    "test_tables_are_taken_over_whole",
    "test_tables_of_further_trainings_are_runs_of_their_candidates",
    "test_the_backbone_is_mergekits_of_headless_models_and_heads_are_the_tasks_own",
    "test_the_command_is_snakemakes",
    "test_the_fit_is_a_minimum_and_never_worse_on_what_it_saw",
    "test_the_hooks_pass_here",
    "test_the_picture_is_the_workflow",
    "test_the_real_rows_are_the_same_reviews_under_all_headers",
    "test_the_report_answers_over_tasks_as_the_verdict_does",
    "test_the_same_bytes_whatever_the_hash_seed_and_the_order_of_members",
    "test_the_script_on_real_rows",
    "test_the_seed_experiments_own_tables",
    "test_the_winner_is_validations_and_its_texts_are_counted_honestly",
    "test_training_on_a_small_card_is_the_same_training_in_smaller_parts",
    "test_two_merges_at_once_do_not_disturb_each_other",
    "test_what_is_whole_is_not_fetched_again",
    "test_your_own_csv_gets_an_answer",
}
"""Tests that take more than about two seconds of a processor, measured."""
LONG_FILES = {
    "test_slurm.py",
    "test_slurm_runs.py",
    "test_slurm_groups.py",
    "test_killed.py",
    "test_warm.py",
    "test_families.py",
    "test_moe.py",
    "test_train_tasks.py",
    "test_tasks_workflow.py",
    "test_extending.py",
    "test_interrupts.py",
    "test_local_limits.py",
    "test_stability.py",
}


class Project:
    """A copy of the project in which Snakemake can run without side effects."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.output = ""  # output of the run that made it
        self.trace = Path()  # files that its jobs opened, if strace exists

    def snakemake(self, *arguments: str, ok: bool = True, trace: Path | None = None) -> str:
        """Run Snakemake; return its output in the logs' order; write the files that its jobs open to ``trace``."""
        if trace:
            command = [*opened_files.traced(trace), sys.executable, "-m", "snakemake", *arguments]
            both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
            done = subprocess.run(command, cwd=self.folder, **both)
        else:
            done = forked_snakemake.run(arguments, self.folder)
        keep_lists(self.folder)
        assert (done.returncode == 0) == ok, done.stdout[-8000:]
        return done.stdout

    def planned(self, *arguments: str) -> Counter[str]:
        """Return the number of jobs of each rule that a dry run announces, without the target `all`."""
        out = self.snakemake("-n", *arguments)
        if "Nothing to be done" in out:
            return Counter()
        lines = out[out.index("Job stats:") :].splitlines()[3:]
        jobs: Counter[str] = Counter()
        for line in lines:
            if not line.split() or line.startswith("total"):
                break
            rule, count = line.split()
            jobs[rule] = int(count)
        jobs.pop("all", None)
        return jobs

    def edit(self, path: str, old: str, new: str) -> None:
        file = self.folder / path
        text = file.read_text()
        assert old in text, f"{old!r} not in {path}"
        file.write_text(text.replace(old, new, 1))

    def copy(self, target: Path) -> "Project":
        shutil.copytree(self.folder, target, symlinks=True)
        return Project(target)


def fresh(target: Path) -> Project:
    """Return only the files that git knows or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        source = ROOT / name
        if source.exists() or source.is_symlink():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name, follow_symlinks=False)
    for compiled in SCRIPTS.rglob("__pycache__/*"):
        if compiled.suffix == ".pyc" or compiled.name.startswith("warm-"):
            copied = target / compiled.relative_to(ROOT)
            copied.parent.mkdir(exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # another worker has just replaced it
                shutil.copy2(compiled, copied)
    return Project(target)


def keep_lists(folder: Path) -> None:
    """Keep what a run's warm process learned for later copies of the project: their first jobs start warm, too."""
    for learned in folder.glob("workflow/scripts/mllm/execution/__pycache__/warm-*.txt"):
        kept = ROOT / learned.relative_to(folder)
        if not kept.exists():
            kept.parent.mkdir(exist_ok=True)
            partial = kept.with_suffix(f".{os.getpid()}")
            shutil.copy2(learned, partial)
            partial.replace(kept)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return fresh(tmp_path / "project")


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Project], str]) -> Project:
    """Return a project that one worker makes for all.

    Args:
    factory: the session's factory of temporary folders.
    name: name of its folder.
    make: makes it there, and returns the printed text, which is its ``output``.
    """
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    made, output = Project(shared / name), shared / f"{name}.txt"
    with FileLock(shared / f"{name}.lock"):
        if not output.exists():
            output.write_text(make(made))
    made.output = output.read_text()
    return made


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Run the complete demonstration once for all workers.

    Do not write to it: take demo.copy(tmp_path / "x").
    """
    whole = ["--profile", "profiles/local", "--configfile", "config/demo.yaml"]
    made = made_once(
        tmp_path_factory,
        "demo",
        lambda at: fresh(at.folder).snakemake(*whole, trace=at.folder.with_suffix(".trace")),
    )
    made.trace = made.folder.with_suffix(".trace")
    return made


@pytest.fixture(scope="session")
def three_tasks(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Make an experiment with merges over three tasks, from invented predictions to its verdict: folder, grid, labels."""
    import three_tasks as experiment

    return experiment.make(tmp_path_factory.mktemp("three"))


@pytest.fixture(scope="session")
def real_rows() -> Path:
    """Return the folder of real Drugs.com reviews, which are not part of the project."""
    folder = REAL / "drugscom"
    if not folder.exists():
        pytest.skip(f"no real reviews at {folder}")
    return folder


def write_split(folder: Path, names: list[str], **parts: pl.DataFrame) -> None:
    """Write tables as split_reviews does, and the labels of their column ``label_t`` as label_reviews does for task t."""
    from mllm.data import labelled

    for split, part in parts.items():
        part.drop("label_t").write_parquet(folder / f"{split}.parquet")
    labels = pl.concat(part.select("review_id", label="label_t") for part in parts.values()).drop_nulls()
    labelled.write_task(folder, "t", {"names": names, "label": "sentiment"}, labels)


@functools.cache
def warm_path() -> str:
    """Return a PATH whose `python script.py` is forked from one process with the libraries, as in jobs of a run."""
    from mllm.execution import warm

    environment = warm.offer()
    atexit.register(warm.withdraw, environment)
    return environment["PATH"]


def run_script(name: str, *arguments: object, ok: bool = True) -> str:
    """Run a script of the workflow by hand; return its output."""
    done = subprocess.run(
        ["python", str(SCRIPTS / f"{name}.py"), *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "PATH": warm_path()},
    )  # fmt: skip
    assert (done.returncode == 0) == ok, done.stdout
    return done.stdout
