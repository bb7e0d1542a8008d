"""Check that the changed parts of Snakemake exist; without one, the change switches itself off with one line."""

import inspect
import threading

import pytest
import snakemake.cli  # noqa: F401  first: its modules import each other

from mllm.execution import local_limits, snakemake_patches, snakemake_speed

FIX = "Snakemake renamed this: see execution/snakemake_patches.py or snakemake_speed.py, {}"


def test_everything_that_is_changed_is_there():
    from snakemake import benchmark, common, jobs, rules
    from snakemake.dag import DAG
    from snakemake.executors import local
    from snakemake.io import _IOFile
    from snakemake.jobs import Job
    from snakemake.logging import DefaultFormatter
    from snakemake.scheduling.job_scheduler import JobScheduler
    from snakemake.shell import shell
    from snakemake.workflow import Workflow

    assert common.get_function_params is rules.get_function_params, FIX.format("keep_function_parameters")
    assert hasattr(Workflow, "register_resource"), FIX.format("limit")
    assert "self.global_resources[" in inspect.getsource(Workflow.__post_init__), FIX.format("limit")
    assert "resources" in inspect.signature(local.run_wrapper).parameters, FIX.format("hand_out_gpus")
    assert "_get_process_prefix(" in inspect.getsource(shell.__new__), FIX.format("hand_out_gpus")
    assert "user_kill" in inspect.getsource(JobScheduler.exit_gracefully), FIX.format("stop_on_signals")
    assert "self.bfs(self.depending, job)" in inspect.getsource(DAG.update_needrun), FIX.format("let_ancient_inputs_be")
    assert "self.depending = defaultdict(" in inspect.getsource(DAG.__init__), FIX.format("let_ancient_inputs_be")
    looking = inspect.getsource(JobScheduler.schedule), FIX.format("look_again_where_held_back")
    assert "_schedule_reevalutation(self.job_rate_limiter.timespan)" in looking[0], looking[1]
    for place, words, change in (
        (DAG.collect_potential_dependencies, "known_producers[file], True", "remember_producers"),
        (Job.log_info, "shellcmd=self.shellcmd", "describe_jobs_once"),
        (jobs.format_files, "fmt_iofile", "describe_jobs_once"),
        (_IOFile.is_storage.fget, "is_flagged(self._file", "ask_for_storage_directly"),
        (Job.conda_env_spec.fget, "self.rule.expand_conda_env(", "ask_no_parameters_for_environments"),
        (rules.Rule.apply_input_function, "Wildcards(fromdict=wildcards)", "make_wildcards_once"),
        (Job.is_valid, "self.rule.expand_log(self.wildcards_dict)", "check_names_once"),
        (rules.Rule.expand_input, "self.input_modifier is not None", "leave_paths_unmodified"),
        (DAG.check_directory_outputs, "outputs[i : i + 2]", "compare_outputs_as_text"),
        (benchmark.ScheduledPeriodicTimer.__init__, "self._times_called = 0", "look_at_no_warm_jobs"),
        (benchmark.benchmarked, "bench_thread.cancel()", "measure_warm_jobs"),
    ):
        assert words in inspect.getsource(place), FIX.format(change)
    source = inspect.getsource(DefaultFormatter)
    for name in ("format_run_info", "format_job_info", "format_job_finished", "format_progress", "_format_job_error"):
        assert f"self.{name}" in source, FIX.format(f"replace_formatter ({name})")


@pytest.mark.parametrize(
    ("module", "name", "change"),
    [
        ("snakemake.rules", "get_function_params", lambda: snakemake_speed.keep_function_parameters()),
        ("snakemake.executors.local", "run_wrapper", lambda: snakemake_patches.hand_out_gpus(lambda number: None)),
        ("snakemake.logging", "DefaultFormatter", lambda: snakemake_patches.replace_formatter(lambda base: base, bool)),
        ("snakemake.dag.DAG", "update_needrun", lambda: snakemake_patches.let_ancient_inputs_be()),
        (
            "snakemake.scheduling.job_scheduler.JobScheduler",
            "_schedule_reevalutation",
            lambda: snakemake_speed.look_again_where_held_back(),
        ),
        ("snakemake.dag.DAG", "update_", lambda: snakemake_speed.remember_producers()),
        ("snakemake.jobs", "format_files", lambda: snakemake_speed.describe_jobs_once()),
        ("snakemake.io._IOFile", "is_storage", lambda: snakemake_speed.ask_for_storage_directly()),
        ("snakemake.jobs.Job", "conda_env_spec", lambda: snakemake_speed.ask_no_parameters_for_environments()),
        ("snakemake.rules", "Wildcards", lambda: snakemake_speed.make_wildcards_once()),
        ("snakemake.jobs.Job", "is_valid", lambda: snakemake_speed.check_names_once()),
        ("snakemake.rules.Rule", "expand_input", lambda: snakemake_speed.leave_paths_unmodified()),
        ("snakemake.dag.DAG", "check_directory_outputs", lambda: snakemake_speed.compare_outputs_as_text()),
        ("snakemake.benchmark", "benchmarked", lambda: snakemake_patches.measure_warm_jobs(lambda shell: None)),
        ("snakemake.benchmark", "BenchmarkTimer", lambda: snakemake_speed.look_at_no_warm_jobs(bool)),
        ("snakemake.settings.types", "load_configfile", lambda: snakemake_patches.before_experiment_files(print)),
        ("snakemake.logging", "logger", lambda: snakemake_patches.limit(object(), {})),
        ("snakemake.logging", "logger", lambda: snakemake_patches.stop_on_signals(object(), print)),
    ],
)
def test_a_change_without_its_place_is_off_in_one_line(monkeypatch, capsys, module, name, change):
    monkeypatch.delattr(f"{module}.{name}")
    assert change() is False
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and " is off (" in said and "Fix: execution/snakemake_" in said


def test_the_scheduler_sets_a_timer_only_where_the_rate_holds_jobs_back(monkeypatch):
    """Snakemake set a timer at each look, and each started the next: after 100 jobs it looked 100 times per second."""
    from snakemake.scheduling.job_scheduler import JobRateLimiter, JobScheduler
    from snakemake.settings.types import MaxJobsPerTimespan

    monkeypatch.setattr(JobScheduler, "_schedule_reevalutation", JobScheduler._schedule_reevalutation)  # put back later
    assert snakemake_speed.look_again_where_held_back()
    scheduler = JobScheduler.__new__(JobScheduler)
    scheduler._open_jobs = threading.Semaphore(0)
    scheduler.job_rate_limiter = JobRateLimiter(MaxJobsPerTimespan(2, "1ms"))
    scheduler.job_rate_limiter.register_jobs(1)
    scheduler._schedule_reevalutation(scheduler.job_rate_limiter.timespan)
    assert not scheduler._open_jobs.acquire(timeout=0.2)
    scheduler.job_rate_limiter._limit.timespan = 0.2
    scheduler.job_rate_limiter.register_jobs(2)
    scheduler._schedule_reevalutation(scheduler.job_rate_limiter.timespan)
    assert scheduler._open_jobs.acquire(timeout=5)


def test_cards_are_handed_out_and_taken_back():
    cards = local_limits.Cards(["4", "7"])
    with cards.claim(1) as first, cards.claim(1) as second:
        assert {first, second} == {"export CUDA_VISIBLE_DEVICES=4; ", "export CUDA_VISIBLE_DEVICES=7; "}
        both = cards.claim(2)
        waiting = threading.Thread(target=both.__enter__)
        waiting.start()
        waiting.join(0.05)
        assert waiting.is_alive()
    waiting.join(5)
    assert not waiting.is_alive() and cards.free == []
    with cards.claim(0) as nothing:
        assert nothing == ""
