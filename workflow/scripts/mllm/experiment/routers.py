"""Routers, the rivals of merges of experts that are trained on slices: they send each review to its slice's expert."""

from mllm.experiment.candidates import Candidate


def routers(experts: list[Candidate]) -> list[Candidate]:
    """Return ``router-<task>`` for each task with two or more experts with ``where``; the file needs no entry for it.

    Unlike a merge, it needs the slice of each review and keeps all experts. It costs one pass.
    """
    sliced: dict[str, list[str]] = {}
    for expert in experts:
        if "where" in expert.part:
            sliced.setdefault(expert.task, []).append(expert.name)
    return [
        Candidate(f"router-{task}", "reference", task, "router", tuple(sorted(names)), made_by="blend")
        for task, names in sliced.items()
        if len(names) > 1
    ]
