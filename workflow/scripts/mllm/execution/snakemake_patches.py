"""What is changed inside Snakemake: one function for each change, with its reason and what happens without it.

Written for Snakemake 9.27.1, which pyproject.toml pins. A change that does not find what it needs switches itself off
and says so in one line; tests/test_snakemake_patches.py names it when a release renames something.
"""

# Over 250 lines: all that is changed inside Snakemake stands in this one module.

import atexit
import functools
import gc
import inspect
import signal
import sys
import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from mllm.core.compute import version
from mllm.execution.slurm_resources import TYPES, choose_gpu, in_turn, submits


def optional(without: str) -> Callable[[Callable[..., None]], Callable[..., bool]]:
    """Let a change switch itself off where Snakemake is another: it returns whether it is on.

    Args:
        without: what the user notices without it.
    """

    def decorate(change: Callable[..., None]) -> Callable[..., bool]:
        @functools.wraps(change)
        def guarded(*arguments: Any) -> bool:
            try:
                change(*arguments)
            except (ImportError, AttributeError) as error:
                found = f"Snakemake {version('snakemake')}: {change.__name__} is off ({error})"
                print(f"{found}; {without}. Fix: execution/snakemake_patches.py", file=sys.stderr)
                return False
            return True

        return guarded

    return decorate


@optional(without="dry runs of large grids take longer")
def keep_function_parameters() -> None:
    """Look up the parameter names of a rule's functions once: Snakemake does so by reflection at each call.

    Measured with 1,000 merges under the Slurm profile (benchmarks/dry_run.py): 7.1 s without, 5.4 s with it.
    """
    from snakemake import common, rules

    if common.get_function_params is not rules.get_function_params:
        raise AttributeError("snakemake.rules has another get_function_params than snakemake.common")
    if not hasattr(common.get_function_params, "cache_info"):
        common.get_function_params = rules.get_function_params = functools.cache(common.get_function_params)


@optional(without="a missing or broken experiment file ends in a traceback")
def before_experiment_files(look: Callable[[Any], None]) -> None:
    """Look at each file of ``--configfile`` before Snakemake reads it.

    Called from profiles/default, which Snakemake reads before those files.
    """
    from snakemake.settings import types

    read = types.load_configfile

    def load_configfile(path: Any) -> Any:
        look(path)
        return read(path)

    types.load_configfile = load_configfile


@optional(without="an added data column, and keep: all, train and predict everything again")
def let_ancient_inputs_be() -> None:
    """Let ``ancient`` inputs never trigger a job, and never hide another reason of it.

    Snakemake runs a finished job whose ancient input is missing, and asks no job behind a planned one for reasons of its own.
    """
    from snakemake.dag import DAG

    original = DAG.update_needrun
    if "self.bfs(self.depending, job)" not in inspect.getsource(original):
        raise AttributeError("DAG.update_needrun walks another way")
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    async def update_needrun(self: Any, *arguments: Any, **named: Any) -> None:
        whole, self.depending = self.depending, defaultdict(functools.partial(defaultdict, set))
        for job, following in whole.items():
            asked = {other: files for other, files in following.items() if not all(f.is_ancient for f in files)}
            self.depending[job].update(asked)
        try:
            await original(self, *arguments, **named)
        finally:
            self.depending = whole

    DAG.update_needrun = update_needrun


@optional(without="dry runs of large grids take longer")
def describe_jobs_once() -> None:
    """Describe a job to the loggers in less time.

    Snakemake puts its shell command together three times, and asks each of its files for nine flags that our formatter
    does not print.
    """
    from snakemake import jobs

    log_info, command = jobs.Job.log_info, jobs.Job.shellcmd.fget
    if "shellcmd=self.shellcmd" not in inspect.getsource(log_info) or not hasattr(jobs, "format_files"):
        raise AttributeError("Job.log_info describes jobs in another way")
    if hasattr(log_info, "__wrapped__"):
        return
    told: dict[Any, str | None] = {}

    @functools.wraps(log_info)
    def once(self: Any, *arguments: Any, **named: Any) -> None:
        told[self] = command(self)
        try:
            log_info(self, *arguments, **named)
        finally:
            del told[self]

    jobs.Job.log_info = once
    jobs.Job.shellcmd = property(lambda self: told[self] if self in told else command(self))
    jobs.format_files = lambda files, **_: list(map(str, files))


@optional(without="dry runs of large grids take longer")
def ask_for_storage_directly() -> None:
    """Answer whether a file is on a remote storage by its flags: Snakemake asks 150 times a job, by way of abstract classes."""
    from snakemake.io import _IOFile

    if "is_flagged(self._file" not in inspect.getsource(_IOFile.is_storage.fget):
        raise AttributeError("_IOFile.is_storage asks in another way")
    none: dict[str, Any] = {}
    _IOFile.is_storage = property(lambda self: bool(getattr(self._file, "flags", none).get("storage_object")))


@optional(without="dry runs of large grids take longer")
def remember_producers() -> None:
    """Look for the job that makes a file once: Snakemake does so for each job that reads it.

    All predictions read the same reviews. Snakemake remembers only the files that no job makes.
    """
    from snakemake.dag import DAG

    original = DAG.update_
    if "known_producers[file], True" not in inspect.getsource(DAG.collect_potential_dependencies):
        raise AttributeError("DAG.collect_potential_dependencies knows no producers")
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


@optional(without="Snakemake takes ever more of a processor beside a large grid's jobs, and a second more to end")
def look_again_where_held_back() -> None:
    """Let a timer wake the scheduler only where the limit of ``max-jobs-per-timespan`` held jobs back.

    Snakemake starts one at each look at its queue; each of them looks again after a second, and starts the next. After 100
    jobs of a long queue it looked 100 times a second.
    """
    from snakemake.scheduling.job_scheduler import JobScheduler

    original = JobScheduler._schedule_reevalutation
    if "_schedule_reevalutation(self.job_rate_limiter.timespan)" not in inspect.getsource(JobScheduler.schedule):
        raise AttributeError("JobScheduler.schedule looks again in another way")
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def held_back(self: Any, delay: float) -> None:
        limiter = self.job_rate_limiter
        if not limiter or delay != limiter.timespan or not limiter.get_free_jobs():
            original(self, delay)

    JobScheduler._schedule_reevalutation = held_back


def collect_less_garbage() -> None:
    """Thousands of merges make millions of small objects that all stay: looking for garbage among them is vain.

    A sixth of a large grid's dry run; taking them apart one by one before the process ends is another second of six.
    """
    gc.set_threshold(1_000_000, 20, 100)
    atexit.register(gc.freeze)


@optional(without="name the limits yourself: --cores 2 --resources gpu=1")
def limit(workflow: Any, limits: dict[str, int]) -> None:
    """Limit what the scheduler runs at once, where command line and profile say nothing.

    Snakemake has copied its settings before it reads the workflow: a setting that changes there comes too late, and a
    start without ``--cores`` would run all jobs at once.
    """
    register, resources = workflow.register_resource, workflow.global_resources
    said = {name for name, resource in resources.items() if resource.value is not None}
    for name in limits.keys() - said:
        register(name, limits[name])
    if workflow.resource_settings.cores is None:
        workflow.resource_settings.cores = limits["_cores"]  # threads of the local executor


@optional(without="one job at a time uses a GPU")
def hand_out_gpus(claim: Callable[[int], AbstractContextManager[str]]) -> None:
    """Give each local job its own GPUs: Snakemake counts them, and all jobs would compute on the first.

    Args:
        claim: reserves a number of GPUs for a block, and gives the command that a job's shell runs first.
    """
    from snakemake.executors import local
    from snakemake.shell import shell

    run, prefix = local.run_wrapper, shell._get_process_prefix
    if "resources" not in inspect.signature(run).parameters:
        raise AttributeError("run_wrapper has no parameter resources")
    place = list(inspect.signature(run).parameters).index("resources")
    of_thread = threading.local()

    def run_with_gpus(*arguments: Any) -> None:
        with claim(arguments[place].get("gpu") or 0) as command:
            of_thread.command = command
            run(*arguments)

    local.run_wrapper = run_with_gpus
    shell._get_process_prefix = lambda *given: prefix(*given) + getattr(of_thread, "command", "")


@optional(without="an interrupted run reports its jobs as failed")
def stop_on_signals(workflow: Any, stop: Callable[[Callable[[], None]], None]) -> None:
    """Let Ctrl-C, SIGTERM and a closed terminal end a local run in order.

    Snakemake registers what ends after a SIGTERM alone, and there waits for its jobs' ends, be it for hours; after
    Ctrl-C it forgets what its jobs did, and reports each as failed.

    Args:
        stop: called in a thread of its own with what tells the scheduler to start nothing more.
    """
    order = workflow.scheduler.exit_gracefully

    def handle(*_: Any) -> None:
        threading.Thread(target=stop, args=(order,), daemon=True).start()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, handle)


@optional(without="its messages have Snakemake's own form")
def replace_formatter(make: Callable[[type], type], keep: Callable[[Any], bool]) -> None:
    """Let Snakemake's own handlers print with another formatter; a logger plugin would have to be a package of its own.

    Args:
        make: gives a subclass of Snakemake's formatter.
        keep: says which records are printed at all.
    """
    from snakemake.logging import DefaultFormatter, logger

    formatter = make(DefaultFormatter)
    strange = [n for n in vars(formatter) if n.lstrip("_").startswith("format") and not hasattr(DefaultFormatter, n)]
    if strange:
        raise AttributeError(f"DefaultFormatter has no {', '.join(strange)}")
    for handler in logger.handlers:
        handler.addFilter(keep)
        if isinstance(handler.formatter, DefaultFormatter):
            old = handler.formatter
            handler.setFormatter(formatter(old.quiet, old.show_failed_logs))


@optional(without="jobs on Slurm ask for any GPU in the partition of CPU jobs")
def choose_gpus_early() -> None:
    """Choose GPU type and partition when resources are worked out, so that a dry run shows what is submitted."""
    from snakemake.iocontainers import ResourceList
    from snakemake.rules import Rule

    original = Rule.expand_resources

    @functools.wraps(original)
    def expand_resources(self: Any, *arguments: Any, **named: Any) -> Any:
        asked = original(self, *arguments, **named)
        return (
            ResourceList(fromdict=choose_gpu(dict(asked.items()))) if asked.get(TYPES) or asked.get("gpus") else asked
        )

    if not hasattr(original, "__wrapped__"):
        Rule.expand_resources = expand_resources


@optional(without="groups on Slurm ask for too little time, and lose what they finished when a job fails")
def run_groups_in_turn() -> None:
    """Let a group ask for its jobs one after the other, keep its finished jobs' outputs, and be the same in each run."""
    from snakemake import dag
    from snakemake.io import is_flagged
    from snakemake.iocontainers import ResourceList
    from snakemake.jobs import GroupJob

    asked, postprocess, chunks = GroupJob.resources.fget, GroupJob.postprocess, dag.group_into_chunks
    if hasattr(postprocess, "__wrapped__"):
        return

    def resources(self: Any) -> Any:
        if not submits(self.dag.workflow):
            return asked(self)
        if not isinstance(self._resources, ResourceList):
            self._resources = ResourceList(fromdict=in_turn([dict(job.resources.items()) for job in self.jobs]))
        return self._resources

    @functools.wraps(postprocess)
    async def keep_finished(self: Any, error: bool = False, **named: Any) -> None:
        kept: set[Any] = getattr(self, "finished_members", set()) if error else set()
        if not kept:
            await postprocess(self, error=error, **named)
            return
        for job in self:
            absent = [f for f in job.output if is_flagged(f, "temp")]
            more = {} if job not in kept else {"ignore_missing_output": absent, "check_output_mtime": False}
            await job.postprocess(error=job not in kept, **{**named, **more})

    def alike_together(number: int, components: Any) -> Any:
        """The same chunks in every run, of components that need the same: one's missing input holds up few others."""
        named = {c: (sorted(map(str, c.input)), sorted(map(str, c.output))) for c in components}
        return chunks(number, sorted(components, key=named.__getitem__))

    GroupJob.resources = property(resources)
    GroupJob.postprocess = keep_finished
    dag.group_into_chunks = alike_together
