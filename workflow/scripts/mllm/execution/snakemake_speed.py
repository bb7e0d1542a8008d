"""Change Snakemake to save time with large grids: one function for each change, as in snakemake_patches."""

import atexit
import functools
import gc
import itertools
import os
from collections.abc import Callable
from typing import Any

from mllm.execution.optional_changes import expects, optional


@optional(without="dry runs of large grids take longer")
def keep_function_parameters() -> None:
    """Look up the parameter names of a rule's functions once: Snakemake uses reflection at each call.

    Measured with 1,000 merges under the Slurm profile (benchmarks/dry_run.py): 7.1 s without, 5.4 s with it.
    """
    from snakemake import common, rules

    if common.get_function_params is not rules.get_function_params:
        raise AttributeError("snakemake.rules has another get_function_params than snakemake.common")
    if not hasattr(common.get_function_params, "cache_info"):
        common.get_function_params = rules.get_function_params = functools.cache(common.get_function_params)


@optional(without="dry runs of large grids take longer")
def describe_jobs_once() -> None:
    """Describe a job to the loggers in less time.

    Snakemake builds its shell command three times, whether or not a logger prints it. It asks each of its files for nine flags
    that this project's formatter does not print. Without ``--printshellcmds``, only the command of each rule's first job is
    built, so that a dry run still finds errors in it.
    """
    from snakemake import jobs

    log_info, command = jobs.Job.log_info, jobs.Job.shellcmd.fget
    expects(log_info, "shellcmd=self.shellcmd")
    if hasattr(log_info, "__wrapped__"):
        return
    expects(jobs.format_files, "fmt_iofile")
    told: dict[Any, str | None] = {}
    seen: set[str] = set()

    @functools.wraps(log_info)
    def once(self: Any, *arguments: Any, **named: Any) -> None:
        settings = self.dag.workflow.output_settings
        wanted = settings.printshellcmds or settings.log_handler_settings or self.rule.name not in seen
        seen.add(self.rule.name)
        told[self] = command(self) if wanted else None
        try:
            log_info(self, *arguments, **named)
        finally:
            del told[self]

    jobs.Job.log_info = once
    jobs.Job.shellcmd = property(lambda self: told[self] if self in told else command(self))
    jobs.format_files = lambda files, **_: list(map(str, files))


@optional(without="dry runs of large grids take longer")
def ask_for_storage_directly() -> None:
    """Tell by flags whether a file is on a remote storage: Snakemake asks 150 times per job, by abstract classes."""
    from snakemake.io import _IOFile

    expects(_IOFile.is_storage.fget, "is_flagged(self._file")
    none: dict[str, Any] = {}
    _IOFile.is_storage = property(lambda self: bool(getattr(self._file, "flags", none).get("storage_object")))


@optional(without="dry runs of large grids take longer")
def remember_producers() -> None:
    """Find the job that makes a file once: Snakemake looks for it again for each job that reads the file.

    All predictions read the same reviews. Snakemake remembers only the files that no job makes.
    """
    from snakemake.dag import DAG

    original = DAG.update_
    expects(DAG.collect_potential_dependencies, "known_producers[file], True")
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    async def update_(self: Any, job: Any, visited: Any = None, known_producers: Any = None, **named: Any) -> None:
        if job in self._dependencies:
            return
        known = {} if known_producers is None else known_producers
        await original(self, job, visited, known, **named)
        for producer, files in self._dependencies[job].items():
            known.update((file, [producer]) for file in files)

    DAG.update_ = update_


@optional(without="dry runs of large grids take longer")
def ask_no_parameters_for_environments() -> None:
    """Compute no parameters of a job whose rule has no conda environment.

    Snakemake computes them for all jobs of the graph, to find the environment's file. It computes them again when a job starts.
    """
    from snakemake.jobs import Job

    original = Job.conda_env_spec.fget
    expects(original, "self.rule.expand_conda_env(")
    Job.conda_env_spec = property(lambda self: None if self.rule.conda_env is None else original(self))


@optional(without="dry runs of large grids take longer")
def make_wildcards_once() -> None:
    """Create a job's wildcards once for consecutive calls of its rule's functions: about fifteen calls per job."""
    from snakemake import rules

    original = rules.Wildcards
    expects(rules.Rule.apply_input_function, "Wildcards(fromdict=wildcards)")
    if hasattr(original, "__wrapped__"):
        return
    last: list[Any] = [None, None]

    @functools.wraps(original, updated=())
    def wildcards(fromdict: dict[str, str]) -> Any:
        if last[0] is not fromdict:
            last[:] = fromdict, original(fromdict=fromdict)
        return last[1]

    rules.Wildcards = wildcards


@optional(without="dry runs of large grids take longer")
def check_names_once() -> None:
    """Check the names of a job's log and benchmark file once: Snakemake creates and checks them twice."""
    from snakemake.jobs import Job

    expects(Job.is_valid, "self.rule.expand_log(self.wildcards_dict)")
    Job.is_valid = lambda self: bool(self.benchmark or self.log)


@optional(without="dry runs of large grids take longer")
def leave_paths_unmodified() -> None:
    """Wrap no input file in a second object where neither a module's prefix nor a default storage changes its path."""
    from snakemake.rules import Rule

    original = Rule.expand_input
    expects(original, "self.input_modifier is not None")
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def expand_input(self: Any, *arguments: Any, **named: Any) -> Any:
        found = self.input_modifier
        stored = self.workflow.storage_settings.default_storage_provider
        if found and not (found.prefix or found._prefix_replacements or found.inner_modifier or stored):
            self.input_modifier = None
        return original(self, *arguments, **named)

    Rule.expand_input = expand_input


@optional(without="dry runs of large grids take longer")
def compare_outputs_as_text() -> None:
    """Look for outputs inside other outputs by their names' parts; Snakemake compares objects of pathlib, a tenth as fast."""
    from snakemake.dag import DAG

    original = DAG.check_directory_outputs
    expects(original, "outputs[i : i + 2]")
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def check_directory_outputs(self: Any) -> None:
        outputs = sorted(os.path.abspath(f).split("/") for job in self.jobs for f in job.output)  # noqa: PTH100
        if any(inner[: len(outer)] == outer for outer, inner in itertools.pairwise(outputs)):
            original(self)  # which tells whether it is a fault, and of which jobs

    DAG.check_directory_outputs = check_directory_outputs


@optional(without="with a large grid, Snakemake uses more and more processor time, and needs a second more to end")
def look_again_where_held_back() -> None:
    """Let a timer wake the scheduler only if ``max-jobs-per-timespan`` held jobs back.

    Snakemake starts a timer at each look at its queue. Each timer looks again after a second, and starts the next.
    After 100 jobs of a long queue it looked 100 times per second.
    """
    from snakemake.scheduling.job_scheduler import JobScheduler

    original = JobScheduler._schedule_reevalutation
    expects(JobScheduler.schedule, "_schedule_reevalutation(self.job_rate_limiter.timespan)")
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def held_back(self: Any, delay: float) -> None:
        limiter = self.job_rate_limiter
        if not limiter or delay != limiter.timespan or not limiter.get_free_jobs():
            original(self, delay)

    JobScheduler._schedule_reevalutation = held_back


@optional(without="Snakemake takes 5 to 30 ms of a processor for each look at a job's processes")
def look_at_no_warm_jobs(warm: Callable[[int], bool]) -> None:
    """Look at the processes of cold jobs only, and not in their first half second: the kernel measures warm children.

    Args:
        warm: tells by the process number of a job's shell whether it started warm children.
    """
    from snakemake import benchmark

    expects(benchmark.ScheduledPeriodicTimer.__init__, "self._times_called = 0")
    look = benchmark.BenchmarkTimer.work
    if hasattr(look, "__wrapped__"):
        return

    @functools.wraps(look)
    def work(self: Any) -> None:
        if not self._times_called:
            self.bench_record.process_gone = True  # unless a later look finds it
        elif not warm(self.pid):
            look(self)

    benchmark.BenchmarkTimer.work = work


def collect_less_garbage() -> None:
    """Collect garbage rarely: thousands of merges make millions of small objects, and all of them stay.

    Collecting took a sixth of a large grid's dry run. Freeing the objects one by one at the end took another second of
    six.
    """
    gc.set_threshold(1_000_000, 20, 100)
    atexit.register(gc.freeze)
