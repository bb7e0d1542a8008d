"""How jobs run on a Slurm cluster: Snakemake's Slurm executor, made to lose nothing and run nothing twice.

The plugin submits (partitions, accounts, GPUs); what is different here, and why:

- A job is its rule's own command under ``jobstep``, not two more Snakemake processes.
- Jobs that outlived their Snakemake are taken over, running or finished, by their record in ``results/<name>/slurm``.
- The queue is asked every few seconds, with one squeue for all jobs, and an answer that does not come is no answer:
  the plugin adds ten seconds after each fruitless look, and forgets its jobs when Slurm's controller is away.
- A failed job's reason is said in words, and each job's use is compared with what it asked for.
"""

import hashlib
import json
import os
import shlex
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError

from mllm.core.files import write_json
from mllm.execution import jobstep, preflight
from mllm.execution.log_format import tail
from mllm.execution.squeue import FAILED, alive, answer, cancel, find_orphans, queue, read
from mllm.execution.usage import count_jobs, efficiency_text, progress, write_efficiency

POLL = (1.0, 15.0)  # seconds between two looks at the queue: after something happened, and at most
SAY = 30.0  # seconds between two lines about the progress
VANISHED = 60.0  # seconds after which a job that Slurm does not know any more has failed
HELD = ("launch failed requeued held", "JobHoldMaxRequeue", "job requeued in held state")
ORPHANS = "MLLM_ORPHANS"  # what becomes of an earlier run's jobs: wait (take them over) or cancel


def install(results: str, disk_mb: Callable[[], int] = lambda: 0) -> None:
    """Let ``executor: slurm`` mean the executor of this module; ``disk_mb`` says how much room the run needs.

    The plugin is chosen by name in the profile and offers no hook; a subclass in its place keeps the profile's keys.
    """
    from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

    plugin = ExecutorPluginRegistry().plugins.get("slurm")
    if plugin is not None:
        plugin.executor = executor(plugin.executor, Path(results, "slurm"), disk_mb)


def executor(base: Any, folder: Path, disk_mb: Callable[[], int]) -> Any:
    """The executor class; made when it is wanted, since importing the plugin costs half a second."""

    class Executor(base):
        """See the module's text."""

        def __post_init__(self, test_mode: bool = False) -> None:
            # The command goes through stdin: on a command line the login node's shell would expand it.
            self.workflow.executor_settings.pass_command_as_script = True
            problems = preflight.problems(self.workflow, folder.parent, disk_mb())
            if problems:
                raise WorkflowError("\n".join(["This cluster cannot run it as the profile says:", *problems]))
            super().__post_init__(test_mode)
            self.totals = count_jobs(self.workflow.dag)
            self.states: dict[str, str] = {}
            self.last_seen: dict[str, float] = {}
            self.failures: Counter[str] = Counter()
            self.releases: Counter[str] = Counter()
            self.used: list[dict[str, Any]] = []
            self.said = (0.0, "")
            self.pause = POLL[0]
            self.silent = False
            self.stopping = threading.Event()
            self.orphans = find_orphans(folder, answer())
            self._next_seconds_between_status_checks = POLL[0]
            left = [o["slurm_id"] for o in self.orphans.values() if alive(o["state"])]
            if left and os.environ.get(ORPHANS, "wait") == "cancel":
                cancel(left)
                # What was cancelled is not to be taken over by what was found before.
                self.orphans = find_orphans(folder, answer())
                self.logger.warning(f"{len(left)} jobs of an earlier run were still in the queue: cancelled.")
            elif left:
                self.logger.warning(
                    f"{len(left)} jobs of an earlier run are still in the queue: those that are wanted are taken"
                    f" over, not submitted again ({ORPHANS}=cancel cancels them instead)."
                )

        def format_job_exec(self, job: Any) -> str:
            if job.is_group() or self.workflow.deployment_settings.deployment_method:
                return str(super().format_job_exec(job))
            command = [sys.executable, "-I", jobstep.__file__, str(record_path(folder, job)), key_of(job)]
            return "exec " + shlex.join(command)

        def run_job(self, job: Any) -> None:
            """Submit or take over; whatever goes wrong is the job's error: the plugin drops this thread's exceptions."""
            from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo

            try:
                self.submit(job)
            except Exception as error:
                # The plugin's own handler breaks at groups; what it was about to tell is the context.
                why = error.__context__ if isinstance(error, AttributeError) and error.__context__ else error
                said = f"{job.name}: not submitted: {why}. Fix: remove the cause, then rerun the same command."
                self._report_job_error_threadsafe(SubmittedJobInfo(job, aux={}), said)

        def submit(self, job: Any) -> None:
            if job.is_group() or self.workflow.deployment_settings.deployment_method:
                super().run_job(job)
                return
            path = record_path(folder, job)
            orphan = self.orphans.pop(str(path), None)
            if orphan:
                if worth_taking_over(orphan, job):
                    self.adopt(job, orphan)
                    return
                if alive(orphan["state"]):
                    cancel([orphan["slurm_id"]])
            self.wait_for_slurm()
            choose_gpu(job.resources)
            write_json(path, {
                "key": key_of(job), "rule": job.name, "run": self.run_uuid, "comment": comment_of(job),
                "command": job.shellcmd, "outputs": [str(f) for f in job.output],
                "benchmark": str(job.benchmark) if job.benchmark else None, "submitted": time.time(),
                "requested": {
                    "mem_mb": job.resources.get("mem_mb"), "minutes": job.resources.get("runtime"),
                    "cpus": job.threads, "gpu": job.resources.get("gpu", 0),
                },
            })  # fmt: skip
            super().run_job(job)

        def wait_for_slurm(self) -> None:
            """Wait until the controller answers: sbatch would fail meanwhile, and use up the job's retries."""
            while queue() is None:
                if not self.silent:
                    self.logger.warning("Slurm does not answer: nothing is submitted until it does.")
                self.silent = True
                if self.stopping.wait(5):
                    raise WorkflowError("the run was stopped while Slurm did not answer")

        def adopt(self, job: Any, orphan: dict[str, Any]) -> None:
            from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo

            self.logger.info(
                f"{job.name} {describe(job)}: Slurm job {orphan['slurm_id']} of an earlier run is taken over."
            )
            log = next(self.slurm_logdir.glob(f"**/{orphan['slurm_id']}.log"), None)
            info = SubmittedJobInfo(job, external_jobid=orphan["slurm_id"], aux={"slurm_logfile": log})
            self._report_job_submission_threadsafe(info)

        async def check_active_jobs(self, active_jobs: list[Any]) -> AsyncGenerator[Any, None]:
            if not active_jobs:
                self.next_seconds_between_status_checks = POLL[0]
                return
            seen = queue()
            if seen is None:
                if not self.silent:
                    self.logger.warning("Slurm does not answer; its jobs go on, and so does the waiting.")
                self.silent, self.next_seconds_between_status_checks = True, POLL[1]
                for info in active_jobs:
                    yield info
                return
            self.silent = False
            known = {row["slurm_id"]: row for row in seen}
            happened = False
            still: dict[Any, str] = {}
            for info in active_jobs:
                before = self.states.get(info.external_jobid)
                try:
                    state = self.look(info, known.get(info.external_jobid))
                except Exception as error:  # it would end this loop, and with it the looking after all jobs
                    state = "FAILED"
                    cancel([info.external_jobid])
                    said = f"{info.job.name}: Slurm job {info.external_jobid} was cancelled: {error!r}"
                    self.report_job_error(info, msg=said)
                happened |= before != state
                self.states[info.external_jobid] = state
                if alive(state):
                    still[info.job] = state
                    yield info
            self.say(still)
            self.pause = POLL[0] if happened else min(self.pause * 1.5, POLL[1])
            self.next_seconds_between_status_checks = self.pause

        def look(self, info: Any, row: dict[str, str] | None) -> str:
            """A job's state; one that ended is reported."""
            slurm_id, path = info.external_jobid, record_path(folder, info.job)
            if row:
                self.last_seen[slurm_id] = time.time()
            state = row["state"] if row else self.unlisted(path, slurm_id)
            if row and state == "PENDING" and row["reason"] in HELD:
                state = self.release(slurm_id, row)
            if state == "COMPLETED":
                self.settle(info, path, state)
                self.report_job_success(info)
            elif state in FAILED:
                self.fail(info, path, state, row)
            return state

        def release(self, slurm_id: str, row: dict[str, str]) -> str:
            """Slurm holds a job that a node could not start; once it is let go, after that it has failed."""
            self.releases[slurm_id] += 1
            if self.releases[slurm_id] <= 2:
                subprocess.run(["scontrol", "release", slurm_id], capture_output=True)
                return "PENDING"
            cancel([slurm_id])
            return "BOOT_FAIL"

        def unlisted(self, path: Path, slurm_id: str) -> str:
            """State of a job that the queue does not list (yet, or any more)."""
            usage = read(jobstep.usage_path(path, slurm_id))
            if usage:
                return "COMPLETED" if usage["status"] == 0 else "FAILED"
            first = self.last_seen.setdefault(slurm_id, time.time())
            return "VANISHED" if time.time() - first > VANISHED else "PENDING"

        def fail(self, info: Any, path: Path, state: str, row: dict[str, str] | None) -> None:
            log = info.aux.get("slurm_logfile")
            usage = self.settle(info, path, state)
            words = in_words(state, info, usage, row, log)
            self.failures[info.job.name] += 1
            self.report_job_error(info, msg=words, aux_logs=[str(log)] if log else [])

        def settle(self, info: Any, path: Path, state: str) -> dict[str, Any] | None:
            """Keep what a job that ended used; its record goes: nobody needs to take it over."""
            usage = read(jobstep.usage_path(path, info.external_jobid))
            record = read(path) or {}
            row = {
                "rule": info.job.name, "job": describe(info.job), "slurm_id": info.external_jobid, "state": state,
                **{f"requested_{k}": v for k, v in (record.get("requested") or {}).items()}, **(usage or {}),
            }  # fmt: skip
            self.used.append(row)
            log = info.aux.get("slurm_logfile")
            try:
                write_efficiency(folder.parent / "efficiency.csv", [row])  # at once: this run's report reads it
                path.unlink(missing_ok=True)
                jobstep.usage_path(path, info.external_jobid).unlink(missing_ok=True)
                if state == "COMPLETED" and log and not self.workflow.executor_settings.keep_successful_logs:
                    Path(log).unlink(missing_ok=True)
            except OSError as error:  # bookkeeping: the job's outcome does not depend on it
                self.logger.warning(f"{info.job.name} {row['job']}: what it used could not be written down: {error}")
            return usage

        def say(self, active: dict[Any, str]) -> None:
            when, before = self.said
            if time.time() - when > SAY:
                line = progress(self.totals, count_jobs(self.workflow.dag), active, self.failures, self.used)
                if line != before:
                    self.logger.info(line)
                self.said = (time.time(), line)

        def shutdown(self) -> None:
            self.stopping.set()
            super().shutdown()
            if self.used:
                table = folder.parent / "efficiency.csv"
                self.logger.info(f"What the jobs asked for and used: {table}\n{efficiency_text(self.used)}")

    return Executor


def choose_gpu(resources: Any) -> None:
    """Set GPU type and partitions: the site's first type that holds the job; its largest where none does.

    The profile's ``gpus`` resource lists TYPE:GB@PARTITIONS in order of preference; ``gres/TYPE`` asks by --gres,
    the type ``any`` for none in particular.
    Without it, a job asks for any GPU in its partition.
    """
    wanted = resources.get("gpus")
    number = resources.get("gpu") or 0
    if wanted:
        resources.gpus = None  # read by the plugin as a number
    if not wanted or not number:
        return
    resources.nodes = 1  # the processes of a job find each other on one machine
    types = preflight.parse_gpus(wanted)
    fitting = [t for t in types if t[1] * 1024 >= (resources.get("gpu_mb") or 0)]
    name, _, partitions = fitting[0] if fitting else max(types, key=lambda t: t[1])
    resources.slurm_partition = partitions
    if name.startswith("gres/"):
        resources.gres, resources.gpu = f"gpu:{name.removeprefix('gres/')}:{number}", 0
    elif name != "any":
        resources.gpu_model = name


def record_path(folder: Path, job: Any) -> Path:
    """Where a job's record stands while it is in the queue."""
    return folder / job.name / f"{describe(job).replace('/', '_') or 'job'}.json"


def describe(job: Any) -> str:
    """A job's wildcards, in a few words."""
    return " ".join(str(v) for _, v in sorted(job.wildcards_dict.items()))


def key_of(job: Any) -> str:
    """Digest of what a job does: its rule, command and parameters (the code's digest is one of them)."""
    values = [job.name, job.shellcmd, sorted(f"{k}={v}" for k, v in job.params.items()), sorted(map(str, job.output))]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def comment_of(job: Any) -> str:
    """The comment that the plugin gives a Slurm job."""
    from snakemake_executor_plugin_slurm.utils import get_job_wildcards

    wildcards = get_job_wildcards(job)
    return f"rule_{job.name}_wildcards_{wildcards}" if wildcards else f"rule_{job.name}"


def worth_taking_over(orphan: dict[str, Any], job: Any) -> bool:
    """Whether an earlier run's job does what this run wants: same command, no input newer than it, not failed."""
    if orphan["key"] != key_of(job) or orphan["state"] in FAILED:
        return False
    if any(Path(f).stat().st_mtime > orphan["submitted"] for f in job.input if Path(f).exists()):
        return False
    return orphan["state"] != "COMPLETED" or all(Path(f).exists() for f in job.output)


def in_words(state: str, info: Any, usage: dict[str, Any] | None, row: dict[str, str] | None, log: Path | None) -> str:
    """Why a job failed, what it had asked for, where, and what to read."""
    text = "\n".join(line for f in [*info.job.log, *([log] if log else [])] for line in tail(Path(f)))
    asked = info.job.resources
    reason = FAILED[state]
    if "CUDA out of memory" in text or "torch.OutOfMemoryError" in text:
        reason = "ran out of GPU memory"
    elif state == "OUT_OF_MEMORY" or "memory limit" in text:
        reason = f"ran out of memory ({asked.get('mem_mb')} MB asked)"
    elif usage and usage["status"] in (-9, 137):
        reason = f"was killed, most likely for its memory ({asked.get('mem_mb')} MB asked)"
    elif state == "TIMEOUT":
        reason += f" ({asked.get('runtime')} minutes asked)"
    elif state == "FAILED" and usage:
        reason += f" (exit status {usage['status']})"
    node = (usage or {}).get("node") or (row or {}).get("nodes")
    where = f" on {node}" if node else ""
    return f"{info.job.name} {describe(info.job)} {reason}{where}: Slurm job {info.external_jobid}."
