"""Report about the data at a run's end: rejected rows, reviews without a label, cut texts."""

from pathlib import Path

from mllm.core.files import read_json


def data_notes(results: Path) -> list[str]:
    """Return one line each, with numbers; leave out what did not happen or is unknown."""
    return [line for note in (rejected, unlabelled, cut) for line in note(results)]


def rejected(results: Path) -> list[str]:
    path = results / "data/quality.json"
    if not path.exists():
        return []
    parts = [part for part in read_json(path).values() if isinstance(part, dict) and "rejected" in part]
    rows = sum(part["rows"] for part in parts)
    reasons: dict[str, int] = {}
    for part in parts:
        for reason, number in part["rejected"].items():
            reasons[reason] = reasons.get(reason, 0) + number
    if not reasons:
        return []
    listed = ", ".join(f"{number:,} {reason}" for reason, number in sorted(reasons.items(), key=lambda r: -r[1]))
    return [f"Rows rejected: {sum(reasons.values()):,} of {rows:,} ({listed}); see {results}/data/rejected.parquet"]


def unlabelled(results: Path) -> list[str]:
    lines = []
    for path in sorted((results / "data/tasks").glob("*/task.json")):
        task = read_json(path)
        without = sum(task["unlabelled"].values())
        labelled = sum(map(sum, task["counts"].values()))
        if without:
            name = path.parent.name
            lines.append(
                f"Reviews without a label for {name}: {without:,} of {without + labelled:,}; they are left out"
            )
    return lines


def cut(results: Path) -> list[str]:
    """Report cut texts; among candidates with the same numbers, name one."""
    costs = {path: read_json(path) for path in sorted((results / "predictions").glob("*.cost.json"))}
    found: dict[tuple[int, int], str] = {}
    for path, cost in costs.items():
        if cost.get("cut_reviews"):
            found.setdefault((cost["cut_reviews"], cost["reviews"]), path.name.removesuffix(".cost.json"))
    return [
        f"Texts cut to a model's max_length: {number:,} of {reviews:,} (by {name})"
        for (number, reviews), name in found.items()
    ]
