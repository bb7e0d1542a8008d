"""Run jobs on a Slurm cluster with Snakemake's Slurm executor, changed to lose no result and run no job twice.

The plugin submits (partitions, accounts, GPUs). The differences, and why:

- A job is its rule's own command under ``jobstep``, not two more Snakemake processes; a group's jobs run there in turn.
- Jobs that outlived their Snakemake are taken over, running or finished, by their record in ``results/<name>/slurm``.
- One squeue for all jobs reads the queue every few seconds, and a missing answer changes no job's state. The plugin
waits
  ten seconds longer after each look without change, and forgets its jobs when Slurm's controller does not answer.
- A message says why a job failed, and a table compares each job's usage with its request.

``slurm_tasks`` makes the decisions; it knows neither Slurm nor Snakemake.
"""

import asyncio
import functools
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any, ClassVar

from snakemake_interface_common.exceptions import WorkflowError

from mllm.core.files import write_json
from mllm.execution import jobstep, preflight, slurm_plugin, snakemake_patches
from mllm.execution.slurm_members import in_order, in_words, members_of, name_of, record_path
from mllm.execution.slurm_tasks import POLL, Task, Watch, key_of_group, plan, record_of
from mllm.execution.squeue import cancel, queue, read, take_over
from mllm.execution.usage import Progress, efficiency_text, write_efficiency


def install(results: str, disk_mb: Callable[[], int] = lambda: 0) -> None:
    """Let ``executor: slurm`` mean this module's executor; ``disk_mb`` returns the disk space that the run needs."""
    members = {"folder": Path(results, "slurm"), "disk_mb": staticmethod(disk_mb)}
    slurm_plugin.replace_executor(type("SlurmExecutor", (SlurmExecutor,), members))
    snakemake_patches.choose_gpus_early()
    snakemake_patches.run_groups_in_turn()


class SlurmExecutor(slurm_plugin.Base):
    """See the module's docstring."""

    folder: ClassVar[Path]
    disk_mb: ClassVar[Any]

    def __post_init__(self, test_mode: bool = False) -> None:
        # The command goes through stdin: on a command line the login node's shell would expand it.
        self.workflow.executor_settings.pass_command_as_script = True
        problems = preflight.problems(self.workflow, self.folder.parent, self.disk_mb())
        if problems:
            raise WorkflowError("\n".join(["This cluster cannot run the profile's settings:", *problems]))
        super().__post_init__(test_mode)
        self.tasks: dict[Any, Task] = {}
        self.watch, self.progress = Watch(), Progress(self.workflow.dag)
        self.own: set[str] = set()  # Slurm jobs that this run submitted
        self.silent, self.stopping = False, threading.Event()
        self.look_again_in(POLL[0])
        self.orphans, said = take_over(self.folder)
        if said:
            self.logger.warning(said)

    # ── Submission ──────────────────────────────────────────────────────────────────────────────────────────────────

    def format_job_exec(self, job: Any) -> str:
        if self.workflow.deployment_settings.deployment_method:
            return str(super().format_job_exec(job))
        task = self.tasks[job]
        key = key_of_group([task.members[i] for i in task.todo])
        return "exec " + shlex.join([sys.executable, "-I", jobstep.__file__, str(task.record), key])

    def run_job(self, job: Any) -> None:
        """Submit a job or take it over; every exception becomes the job's error, since the plugin drops this thread's."""
        try:
            self.submit(job)
        except Exception as error:
            # The plugin's own handler fails for groups; the context holds the original error.
            why = error.__context__ if isinstance(error, AttributeError) and error.__context__ else error
            names = dict.fromkeys(one.name for one in (job.jobs if job.is_group() else [job]))
            said = f"{', '.join(names)}: not submitted: {why}. Fix: remove the cause, then rerun the same command."
            if job.is_group():  # Snakemake shows no message for a group's error
                self.logger.error(said)
            self.tell_not_submitted(job, said)

    def submit(self, job: Any) -> None:
        jobs = in_order(job)
        members = members_of(self.workflow.dag, jobs, job)
        if self.workflow.deployment_settings.deployment_method:
            self.tasks[job] = Task(jobs, members, list(range(len(members))), record_path(self.folder, members), [])
            super().run_job(job)
            return
        states = {row["slurm_id"]: row["state"] for row in self.wait_for_slurm()}
        orphans = [{**o, "state": states.get(o["slurm_id"], o["state"])} for o in self.orphans]
        planned = plan(members, self.folder, orphans)
        if planned.cancel:
            cancel(planned.cancel)
        todo = [members[i] for i in planned.todo]
        path = record_path(self.folder, todo or members)
        ids = planned.live or ([] if todo else planned.done)
        task = self.tasks[job] = Task(jobs, members, planned.todo, path, ids)
        for slurm_id in [*planned.live, *planned.done]:
            if slurm_id not in self.own:
                self.logger.info(f"{name_of(members)}: Slurm job {slurm_id} of an earlier run is taken over.")
        if not todo:
            log = next(self.log_folder.glob(f"**/{task.ids[0]}.log"), None)
            self.tell_submitted(job, task.ids[0], log)
            return
        for member in todo:
            for slurm_id, _ in member.usages(self.folder):
                jobstep.usage_path(self.folder / f"{member.place}.json", slurm_id).unlink(missing_ok=True)
        if job.is_group():
            job.wildcards = [task.record.stem]  # makes Slurm's comment unique for this group
        if job.resources.get("gres"):
            job.resources.gpu = 0  # the plugin refuses both together
        record = record_of(members, planned.todo, self.run_name, slurm_plugin.comment_of(job))
        write_json(task.record, record)
        super().run_job(job)

    def wait_for_slurm(self) -> list[dict[str, str]]:
        """Return the queue once the controller answers; until then, sbatch would fail and use up the job's retries."""
        while (rows := queue()) is None:
            if not self.silent:
                self.logger.warning("Slurm does not answer: nothing is submitted until it does.")
            self.silent = True
            if self.stopping.wait(5):
                raise WorkflowError("the run was stopped while Slurm did not answer")
        return rows

    def report_job_submission(self, job_info: Any, register_job: bool = True) -> None:
        task = self.tasks[job_info.job]
        if job_info.external_jobid not in task.ids:
            self.own.add(job_info.external_jobid)
            task.ids.append(job_info.external_jobid)
        super().report_job_submission(job_info, register_job=register_job)

    def cancel_jobs(self, active_jobs: list[Any]) -> None:
        """Cancel all allocations of this run; the given list lacks the jobs that are being checked."""
        self.cancel_all([i for task in self.tasks.values() for i in task.ids])

    def shutdown(self) -> None:
        self.stopping.set()
        super().shutdown()
        if self.progress.used:
            table = self.folder.parent / "efficiency.csv"
            self.logger.info(f"Requested and used resources: {table}\n{efficiency_text(self.progress.used)}")

    # ── Checking submitted jobs ────── ────────────────────────────────────────────────────────────────────────────

    async def check_active_jobs(self, active_jobs: list[Any]) -> AsyncGenerator[Any, None]:
        if not active_jobs:
            self.look_again_in(POLL[0])
            return
        seen = await asyncio.to_thread(queue)
        if seen is None:
            if not self.silent:
                self.logger.warning("Slurm does not answer. Its jobs continue; this run waits.")
            self.silent = True
            self.look_again_in(POLL[1])
            for info in active_jobs:
                yield info
            return
        self.silent = False
        rows = {row["slurm_id"]: row for row in seen}
        happened, active = False, {}
        for info in active_jobs:
            task = self.tasks[info.job]
            before = dict(task.states)
            try:
                outcome = self.look(task, rows)
                if outcome != "running":
                    self.settle(info, task, outcome, rows)
            except Exception as error:  # it would end this loop, and no job would be checked any more
                outcome = "failed"
                self.tasks.pop(info.job, None)
                cancel(task.ids)
                said = f"{name_of(task.members)}: Slurm job {', '.join(task.ids)} was cancelled: {error!r}"
                self.report_job_error(info, msg=said)
            happened |= before != task.states
            if outcome == "running":
                state = "RUNNING" if "RUNNING" in task.states.values() else "PENDING"
                active.update(dict.fromkeys(task.jobs, state))
                yield info
        if line := self.progress.line(active):
            self.logger.info(line)
        self.look_again_in(self.watch.next_look(happened))

    def look(self, task: Task, rows: dict[str, dict[str, str]]) -> str:
        """Update the states of a task's allocations, and return the task's outcome."""
        for slurm_id in task.ids:
            ended = functools.partial(self.ended, task, slurm_id)
            state, action = self.watch.state(slurm_id, rows.get(slurm_id), ended, time.time())
            task.states[slurm_id] = state
            if action == "release":
                subprocess.run(["scontrol", "release", slurm_id], capture_output=True, timeout=60)
            elif action == "cancel":
                cancel([slurm_id])
        return task.outcome(self.folder)

    def ended(self, task: Task, slurm_id: str) -> dict[str, Any] | None:
        """Return the usage that an unlisted allocation left at its end: its own file, or its only member's."""
        records = [task.record, *(Path(o["record"]) for o in self.orphans if o["slurm_id"] == slurm_id)]
        found = [u for record in records if (u := read(jobstep.usage_path(record, slurm_id)))]
        return found[0] if found else None

    def settle(self, info: Any, task: Task, outcome: str, rows: dict[str, dict[str, str]]) -> None:
        """Record the resources that an ended task's members used, and report its outcome."""
        log, state = info.aux.get("slurm_logfile"), "COMPLETED" if outcome == "done" else task.worst()
        usages = [member.usage(self.folder, task.ids) for member in task.members]
        good = [outcome == "done" or bool(u and u["status"] == 0) for u in usages]
        nodes = next((rows[i]["nodes"] for i in task.ids if i in rows), "")
        said = {i: in_words(state, task.members[i], usages[i], nodes, task.ids[-1], log) for i in task.failing(usages)}
        self.keep_used(task, usages, good, state, log)
        del self.tasks[info.job]
        if outcome == "done":
            self.report_job_success(info)
            return
        if any(good):
            kept = f" {sum(good)} of the group's {len(good)} jobs finished; their results are kept."
            said = {i: words + kept for i, words in said.items()}
        for i, words in said.items():
            self.progress.failures[task.members[i].rule] += 1
            task.jobs[i].log_error(words, aux_logs=[str(log)] if log else [])
        # Their outputs stay when Snakemake deletes a failed group's outputs (snakemake_patches).
        info.job.finished_members = {job for job, well in zip(task.jobs, good, strict=True) if well}
        self.workflow.scheduler.error_callback(info.job)

    def keep_used(
        self, task: Task, usages: list[dict[str, Any] | None], good: list[bool], state: str, log: Path | None
    ) -> None:
        """Write the resources that members used; delete their records, since no run needs to take them over any more."""
        new = self.progress.add(task.used(usages, good, state))
        try:
            write_efficiency(self.folder.parent / "efficiency.csv", new)  # at once: this run's report reads it
            task.forget(self.folder, good)
            if all(good) and log and not self.workflow.executor_settings.keep_successful_logs:
                Path(log).unlink(missing_ok=True)
        except OSError as error:  # bookkeeping: the outcome does not depend on it
            self.logger.warning(f"{name_of(task.members)}: its resource usage was not written: {error}")
