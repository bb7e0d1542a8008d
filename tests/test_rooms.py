"""Check the rooms of the package by syntax trees: which room imports which."""

import ast
import re
from pathlib import Path

import pytest

from conftest import ROOT, SCRIPTS

PACKAGE = SCRIPTS / "mllm"
FIRST = {
    "core": set(),
    "experiment": {"core"},
    "data": {"core", "experiment"},
    "models": {"core", "experiment", "data"},
    "merging": {"core", "experiment", "data", "models"},
    "prediction": {"core", "experiment", "data", "models"},
    "evaluation": {"core", "experiment", "data", "models", "merging", "prediction"},
    "reporting": {"core", "experiment", "data", "models", "merging", "prediction", "evaluation"},
    "execution": {"core", "experiment"},
    "interface": {"core", "experiment", "data", "models", "merging", "prediction", "evaluation", "reporting"},
}
"""Room -> the rooms that it may import besides itself."""
MODULES = {
    ".".join(["mllm", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imported(path: Path) -> list[tuple[str, int]]:
    """Return the modules of the package that a file imports, with the line, without imports for type checkers."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    checked_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found: list[tuple[str, int]] = []
    for node in ast.walk(tree):
        if id(node) in checked_only:
            continue
        if isinstance(node, ast.Import):
            found += [(a.name, node.lineno) for a in node.names if a.name.split(".")[0] == "mllm"]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write the whole path"
            if (node.module or "").split(".")[0] == "mllm":
                names = [f"{node.module}.{a.name}" for a in node.names]
                found += [(n if n in MODULES else str(node.module), node.lineno) for n in names]
    return found


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("name", [n for n in MODULES if room(n)])
def test_a_room_imports_only_rooms_before_it(name):
    for module, line in imported(MODULES[name]):
        assert module in MODULES, f"{MODULES[name]}:{line}: {module} is no module of the package"
        allowed = {room(name), *FIRST[room(name)]}
        assert room(module) in allowed, f"{MODULES[name]}:{line}: {room(name)} may not import {room(module)} ({module})"


def test_no_circles_between_modules():
    edges = {name: {m for m, _ in imported(path)} - {name} for name, path in MODULES.items()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"a circle of imports: {' → '.join([*path[path.index(name) :], name])}"
        if name not in done:
            for after in sorted(edges[name]):
                visit(after, (*path, name))
            done.add(name)

    for name in edges:
        visit(name, ())


def test_every_room_says_what_lives_there():
    folders = {p.parent for p in MODULES.values()}
    for folder in folders - {PACKAGE}:
        docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
        assert docstring, f"{folder}/__init__.py: say in a docstring what lives there and what it may import"
    assert {p.name for p in folders if p.parent == PACKAGE} == set(FIRST)


def test_only_rules_and_the_doctor_import_execution():
    for script in SCRIPTS.glob("*.py"):
        rooms = {room(m) for m, _ in imported(script)}
        assert "execution" not in rooms, f"{script.name}: scripts compute, they do not schedule"


def test_the_picture_of_the_rooms_is_the_table():
    """In docs/architecture.md, an arrow leads from a room to one that may import it, or follows from other arrows."""
    text = (ROOT / "docs/architecture.md").read_text()
    picture = re.search(r"## The rooms of the package.*?```mermaid\n(.*?)```", text, re.S)[1]
    arrows = {tuple(re.findall(r"(\w+)(?:\[[^]]*\])?", side)[0] for side in line.split(" --> ")) for line in picture.splitlines() if "-->" in line}  # fmt: skip
    before = {room: {one for one, other in arrows if other == room} for room in FIRST}
    for _ in FIRST:
        before = {room: set().union(rooms, *(before[r] for r in rooms)) for room, rooms in before.items()}
    assert before == FIRST
    for one, other in arrows:
        between = [r for r in FIRST[other] if one in FIRST[r]]
        assert not between, f"{one} --> {other} follows from the arrows over {between}: leave it out"
