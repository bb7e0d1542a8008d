"""Change Snakemake's behaviour: one function for each change, with its reason and its effect.

Written for Snakemake 9.27.1, which pyproject.toml pins. A change that does not find what it needs switches itself off
with one line; tests/test_snakemake_patches.py names it if a release renames something. Changes that only save time are
in snakemake_speed.
"""

import functools
import inspect
import signal
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from mllm.execution.optional_changes import expects, optional
from mllm.execution.slurm_resources import TYPES, choose_gpu, in_turn, submits


@optional(without="a missing or broken experiment file ends in a traceback")
def before_experiment_files(look: Callable[[Any], None]) -> None:
    """Check each file of ``--configfile`` before Snakemake reads it.

    profiles/default calls it, which Snakemake reads before those files.
    """
    from snakemake.settings import types

    read = types.load_configfile

    def load_configfile(path: Any) -> Any:
        look(path)
        return read(path)

    types.load_configfile = load_configfile


@optional(without="an added data column, and keep: all, rerun all trainings and predictions")
def let_ancient_inputs_be() -> None:
    """Let ``ancient`` inputs never trigger a job, and never hide a job's other reasons.

    Snakemake reruns a finished job whose ancient input is missing. It also checks no job after a planned one for its
    own reasons.
    """
    from snakemake.dag import DAG

    original = DAG.update_needrun
    expects(original, "self.bfs(self.depending, job)")
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


@optional(without="set the limits yourself: --cores 2 --resources gpu=1")
def limit(workflow: Any, limits: dict[str, int]) -> None:
    """Limit what the scheduler runs at once, unless command line or profile set the limit.

    Snakemake copies its settings before it reads the workflow: changing a setting there has no effect. A start without
    ``--cores`` would run all jobs at once.
    """
    register, resources = workflow.register_resource, workflow.global_resources
    said = {name for name, resource in resources.items() if resource.value is not None}
    for name in limits.keys() - said:
        register(name, limits[name])
    if workflow.resource_settings.cores is None:
        workflow.resource_settings.cores = limits["_cores"]  # threads of the local executor


@optional(without="one job at a time uses a GPU")
def hand_out_gpus(claim: Callable[[int], AbstractContextManager[str]]) -> None:
    """Give each local job its own GPUs: Snakemake only counts them, and all jobs would use the first.

    Args:
        claim: reserves a number of GPUs for a block, and yields the command that a job's shell runs first.
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
    """Let Ctrl-C, SIGTERM and a closed terminal end a local run cleanly.

    Snakemake records jobs that end after a SIGTERM only, and then waits until its jobs end, for hours if need be. After
    Ctrl-C it forgets its jobs' results, and reports each job as failed.

    Args:
        stop: called in a separate thread with the function that tells the scheduler to start no more jobs.
    """
    order = workflow.scheduler.exit_gracefully

    def handle(*_: Any) -> None:
        threading.Thread(target=stop, args=(order,), daemon=True).start()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, handle)


@optional(without="messages have Snakemake's own format")
def replace_formatter(make: Callable[[type], type], keep: Callable[[Any], bool]) -> None:
    """Let Snakemake's own handlers print with another formatter; a logger plugin would need a separate package.

    Args:
        make: returns a subclass of Snakemake's formatter.
        keep: tells whether to print a record.
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


@optional(without="jobs on Slurm request any GPU in the partition of CPU jobs")
def choose_gpus_early() -> None:
    """Choose GPU type and partition when resources are computed, so that a dry run shows what is submitted."""
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


@optional(without="groups on Slurm request too little time, and lose finished jobs when one fails")
def run_groups_in_turn() -> None:
    """Let a group request resources for one job at a time, keep finished jobs' outputs, and be the same in each run."""
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
        """Form the same chunks in every run, of components with the same inputs: a missing input delays few others."""
        named = {c: (sorted(map(str, c.input)), sorted(map(str, c.output))) for c in components}
        return chunks(number, sorted(components, key=named.__getitem__))

    GroupJob.resources = property(resources)
    GroupJob.postprocess = keep_finished
    dag.group_into_chunks = alike_together


@optional(without="benchmark files of warm jobs have the figures of their clients")
def measure_warm_jobs(used: Callable[[int], tuple[float, float] | None]) -> None:
    """Write the figures of a job's warm children into its benchmark file; Snakemake looks at its own children only.

    Args:
        used: returns the children's CPU time in seconds and memory in MB by the process number of the job's shell; None without
            children.
    """
    from snakemake import benchmark

    original = benchmark.benchmarked

    @contextmanager
    def benchmarked(pid: Any = None, benchmark_record: Any = None, *rest: Any) -> Iterator[Any]:
        with original(pid, benchmark_record, *rest) as record:
            yield record
        if pid and (figures := used(pid)):
            record.cpu_time, record.max_rss = figures
            record.cpu_usage = 100 * record.cpu_time
            record.max_vms = record.max_uss = record.max_pss = record.io_in = record.io_out = "NA"
            record.data_collected = True

    benchmark.benchmarked = benchmarked
