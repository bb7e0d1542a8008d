"""Resolve branches and tags of the hub to commits once, so that an experiment keeps its meaning.

The commits are in a file beside the experiment (``config/x.yaml`` → ``config/x.lock.yaml``), to be committed with it.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mllm.core.files import whole
from mllm.experiment.yaml_files import ExperimentError

if TYPE_CHECKING:
    from mllm.experiment.schema import Experiment

COMMIT = re.compile(r"[0-9a-f]{40}")
HEADING = "# Commits of the hub's branches and tags, resolved once. Delete a line to take the newest commit.\n"


def path_of(experiment: str | Path) -> Path:
    """Return the path of an experiment file's lock."""
    return Path(experiment).with_suffix(".lock.yaml")


def pin(experiment: "Experiment", file: str | Path, ask: Callable[[str, str], str] | None = None) -> "Experiment":
    """Return the experiment with known commits in place of branches and tags.

    Args:
        experiment: its models may have a branch or tag as revision.
        file: experiment file, whose lock is read.
        ask: resolves a (repository, revision) that the lock lacks; its commit is then added to the lock. None: such
            revisions stay.

    Raises:
        ExperimentError: a revision could not be resolved, or the lock is no map to commits.
    """
    lock, problems = path_of(file), []
    try:
        known: Any = (yaml.safe_load(lock.read_text(encoding="utf-8")) or {}) if lock.exists() else {}
    except (yaml.YAMLError, UnicodeDecodeError):
        known = None
    if not isinstance(known, dict) or not all(COMMIT.fullmatch(str(v)) for v in known.values()):
        raise ExperimentError(
            str(lock), ["expected lines `owner/name@branch: commit`. Fix: delete the file to resolve them again"]
        )
    models, before = [], len(known)
    for i, model in enumerate(experiment.models):
        revision = getattr(model, "revision", None)
        if revision and not COMMIT.fullmatch(revision):
            key = f"{model.id}@{revision}"  # type: ignore[union-attr]
            if key not in known and ask:
                try:
                    known[key] = ask(model.id, revision)  # type: ignore[union-attr]
                except OSError as error:
                    problems.append(
                        f"models[{i}].revision: {revision!r} of {error}, or give the commit (40 hexadecimal digits)"
                    )
            model = model.model_copy(update={"revision": known.get(key, revision)})
        models.append(model)
    if len(known) > before:
        try:
            with whole(lock) as partial:
                partial.write_text(HEADING + yaml.safe_dump(known), encoding="utf-8")
        except OSError as error:
            problems.append(
                f"{lock}: cannot write the lock ({error.strerror}). Fix: make the experiment's folder writable"
            )
    if problems:
        raise ExperimentError(str(file), problems)
    return experiment.model_copy(update={"models": models})
