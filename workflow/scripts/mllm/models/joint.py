"""Make one model to train on several tasks at once: one backbone, and a head for each task if the family has heads.

A batch mixes the tasks' reviews. Its loss is the mean over its rows, each by its own task's answer, so that a task counts
by its number of reviews. This is examples-proportional mixing without a limit (Raffel et al. 2020, arXiv 1910.10683,
section 3.5.2), as in MT-DNN (Liu et al. 2019, arXiv 1901.11504). Merging is compared with this multi-task learning.
"""

from dataclasses import replace
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from transformers.modeling_outputs import SequenceClassifierOutput

from mllm.core.errors import Failure
from mllm.models import families, task_folders
from mllm.models.heads import head_modules
from mllm.models.loading import load_model, load_weights
from mllm.models.training_rows import Reviews
from mllm.models.transformers_private.children import shallow_copy


def load(bases: dict[str, Path], family: str) -> tuple[Any, Any]:
    """Load one model from the tasks' bases, and its tokenizer.

    Args:
        bases: task -> the base's folder. The first in order gives all weights except the others' heads.
        family: the family of all bases.

    Raises:
        Failure: as in :func:`mllm.models.loading.load_model`; or the bases differ in more than their heads.
    """
    (_, first), *others = sorted(bases.items())
    model, tokenizer = load_model(first, family)
    more = [load_weights(folder, family, headless=False) for _, folder in others]
    head = set(head_modules(model)) if family == families.HEADED else set()
    for (_, folder), other in zip(others, more, strict=True):
        _check_alike(model, other, head, first, folder)
    return (with_heads(model, more) if head else model), tokenizer


def with_heads(model: Any, others: list[Any]) -> Any:
    """Make a classifier that answers for several tasks: the first's backbone, and the others' heads beside its own.

    The heads of task i are the model's children ``<name>_i``. Its ``logits`` are those of all tasks side by side:
    (reviews, classes of all tasks). With ``head``, (reviews,) numbers of tasks, the logits of other tasks than a
    review's own are -inf. Cross-entropy is then that of its own task, and no other head gets a gradient from it.
    """
    shells = [shallow_copy(model), *others]
    prefix, names = model.base_model_prefix, []
    for i, shell in enumerate(shells):
        children = {name: child for name, child in shell.named_children() if name != prefix}
        names.append({name: f"{name}_{i}" if i else name for name in children})
        for name, child in children.items() if i else ():
            model.add_module(names[i][name], child)
        delattr(shell, prefix)
    owner = [i for i, shell in enumerate(shells) for _ in range(shell.config.num_labels)]
    model.register_buffer("owner", torch.tensor(owner), persistent=False)
    model.names_of_heads = names

    def forward(self: Any, head: torch.Tensor | None = None, **inputs: Any) -> SequenceClassifierOutput:
        body, found = _Once(getattr(self, prefix)), []
        for shell, own in zip(shells, names, strict=True):
            vars(shell)[prefix] = body
            for name, at in own.items():
                setattr(shell, name, self.get_submodule(at))  # adapters wrap them
            found.append(shell(**inputs).logits)
        logits = torch.cat(found, dim=1)
        if head is not None and len(shells) > 1:
            logits = logits.masked_fill(self.owner != head[:, None], -torch.inf)
        return SequenceClassifierOutput(logits=logits)

    model.forward = MethodType(forward, model)
    return model


class _Once:
    """A backbone that computes a batch once, although all tasks ask for it."""

    def __init__(self, body: Any):
        self.body, self.answer = body, None

    def __call__(self, *inputs: Any, **more: Any) -> Any:
        if self.answer is None:
            self.answer = self.body(*inputs, **more)
        return self.answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.body, name)


def together(of_tasks: dict[str, Reviews], classes: dict[str, int], headed: bool) -> Reviews:
    """Join the rows of all tasks. Each row names its ``task`` and, with ``headed``, the ``head`` that its answer is for.

    Args:
        of_tasks: task -> the rows of :func:`mllm.models.training_rows.prepare`.
        classes: task -> its number of classes.
        headed: whether the model has a head for each task.
    """
    begin, found = 0, []
    for i, task in enumerate(sorted(of_tasks)):
        own = {"task": i, "head": i} if headed else {"task": i}
        shift = begin if headed else 0
        for rows in (of_tasks[task].train, of_tasks[task].valid):
            for row in rows:
                row.update(own)
                if headed:
                    row["answer"] += shift
        begin += classes[task]
        found.append(of_tasks[task])
    train, valid = ([row for part in found for row in getattr(part, split)] for split in ("train", "valid"))
    valid.sort(key=lambda row: len(row["input_ids"]))
    return replace(found[0], train=train, valid=valid, cut=sum(part.cut for part in found))


def write(model: Any, bases: dict[str, Path], output: Path) -> None:
    """Write ``output/<task>/`` for each task of a model of :func:`load`; everything except the weights is the base's."""
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    heads, shared, named = {}, {}, getattr(model, "names_of_heads", [{}] * len(bases))
    for (task, folder), own in zip(sorted(bases.items()), named, strict=True):
        tensors = task_folders.shapes(folder)
        heads[task] = {n: state[_renamed(n, own)] for n in tensors if n.split(".")[0] in own}
        shared = {n: state[n] for n in tensors if n.split(".")[0] not in own}
    task_folders.write_task_folders(shared, heads, bases, output)


def _renamed(name: str, own: dict[str, str]) -> str:
    first, *rest = name.split(".")
    return ".".join([own[first], *rest])


def _check_alike(model: Any, other: Any, head: set[str], first: Path, folder: Path) -> None:
    """Refuse a base whose weights outside its head differ from the first base's."""
    one, two = ({n: t for n, t in m.state_dict().items() if n.split(".")[0] not in head} for m in (model, other))
    for name in sorted(one.keys() | two.keys()):
        if (
            name not in one
            or name not in two
            or one[name].shape != two[name].shape
            or not torch.equal(one[name], two[name])
        ):
            raise Failure(
                f"{folder}: {name} differs from that of {first}; one model of several tasks needs bases that differ in their"
                " heads only. Fix: delete both and rerun, so that both are made from the same checkpoint"
            )
