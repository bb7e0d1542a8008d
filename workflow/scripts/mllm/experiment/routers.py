"""The rival of experts that are trained on slices: each review to the expert of its own slice."""

from mllm.experiment.candidates import Candidate


def routers(experts: list[Candidate]) -> list[Candidate]:
    """``router-<task>`` of each task that has two or more experts with ``where``; nobody needs to ask for it.

    It is no merge's equal in what must be known (the slice of each review) and kept (all experts), and costs one pass.
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
