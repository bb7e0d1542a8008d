"""Use the Slurm plugin's private names, all in this one place; written for snakemake-executor-plugin-slurm 2.8.0.

The profile chooses the plugin by name, and the plugin offers no hook; a subclass in its place keeps the profile's keys.
If one of these names is missing, a run with ``executor: slurm`` is refused in one line; all other runs work.
"""

from typing import Any

from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

from mllm.core.compute import version

try:
    from snakemake_executor_plugin_slurm import Executor as Plugin
except ImportError:
    Plugin = object

WRITTEN_FOR = "2.8."
NEEDED = {  # name -> why the executor needs it
    "run_job": "submits a job, and asks `format_job_exec` for its command",
    "cancel_jobs": "is called on Ctrl-C",
    "_report_job_submission_threadsafe": "tells Snakemake of a submission from the plugin's thread",
    "_report_job_error_threadsafe": "tells Snakemake of a failed submission from the plugin's thread",
}
MADE_AT_START = {  # set in __post_init__
    "run_uuid": "names a run's jobs in Slurm, so that a later run finds them",
    "slurm_logdir": "is the folder of Slurm's own messages",
}
COMMENT = ("rule_", "_wildcards_")  # Slurm's comment of a job: rule_<rule>_wildcards_<wildcards>


def problems() -> list[str]:
    """Return one line for each way in which the installed plugin differs from the one that the executor needs."""
    have = version("snakemake-executor-plugin-slurm")
    if not have.startswith(WRITTEN_FOR):
        return [
            f"snakemake-executor-plugin-slurm is {have}, expected {WRITTEN_FOR}x. Fix: make setup, which reads uv.lock"
        ]
    gone = [name for name in NEEDED if not hasattr(Plugin, name)]
    started = getattr(getattr(Plugin, "__post_init__", None), "__code__", None)
    gone += [name for name in MADE_AT_START if started is None or name not in started.co_names]
    return [f"snakemake-executor-plugin-slurm {have} has no {name}. Fix: adapt {__name__}" for name in gone]


def replace_executor(executor: type) -> None:
    """Let ``executor: slurm`` mean another class; do nothing if the plugin is not installed."""
    plugin = ExecutorPluginRegistry().plugins.get("slurm")
    if plugin is not None:
        plugin.executor = executor


def comment_of(job: Any) -> str:
    """Return the comment that the plugin gives a Slurm job."""
    from snakemake_executor_plugin_slurm.utils import get_job_wildcards

    wildcards = get_job_wildcards(job)
    return f"{COMMENT[0]}{job.name}" + (f"{COMMENT[1]}{wildcards}" if wildcards else "")


class Base(Plugin):
    """The plugin's executor; methods of this project wrap its private names."""

    @property
    def log_folder(self) -> Any:
        return self.slurm_logdir

    @property
    def run_name(self) -> str:
        return str(self.run_uuid)

    def tell_submitted(self, job: Any, slurm_id: str, log: Any) -> None:
        info = SubmittedJobInfo(job, external_jobid=slurm_id, aux={"slurm_logfile": log})
        self._report_job_submission_threadsafe(info)

    def tell_not_submitted(self, job: Any, message: str) -> None:
        self._report_job_error_threadsafe(SubmittedJobInfo(job, aux={}), message)

    def cancel_all(self, ids: list[str]) -> None:
        super().cancel_jobs([SubmittedJobInfo(None, external_jobid=i) for i in ids])

    def look_again_in(self, seconds: float) -> None:
        self.next_seconds_between_status_checks = seconds
