"""The digest of a script's meaning, by which Snakemake knows when to run its rule again."""

import ast
import functools
import hashlib
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2]


def code_digest(script: str) -> str:
    """Digest of a script and of all the project's modules that it imports, directly or not.

    Taken over the syntax trees without docstrings: a comment, a blank line or a docstring changes
    nothing, any other edit does. ``script`` is a name under ``workflow/scripts``, without ``.py``.
    """
    seen: dict[Path, str] = {}
    _collect(SCRIPTS / f"{script}.py", seen)
    joined = "".join(f"{path.name}:{digest}\n" for path, digest in sorted(seen.items()))
    return hashlib.sha256(joined.encode()).hexdigest()[:16]


def _collect(path: Path, seen: dict[Path, str]) -> None:
    if path in seen:
        return
    seen[path], imports = _meaning(path)
    for module in imports:
        _collect(module, seen)


@functools.cache
def _meaning(path: Path) -> tuple[str, tuple[Path, ...]]:
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    imports: set[Path] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            # A lone string is a docstring (of a module, class, function or attribute).
            node.body = [n for n in node.body if not _is_string(n)] or [ast.Pass()]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mllm":
            imports.update(m for alias in node.names for m in _files(f"{node.module}.{alias.name}"))
        elif isinstance(node, ast.Import):
            imports.update(m for a in node.names if a.name.split(".")[0] == "mllm" for m in _files(a.name))
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), tuple(sorted(imports))


def _files(name: str) -> list[Path]:
    """Files behind ``mllm.room.module`` or ``mllm.room.module.attribute``; of the families, which are found by name, all."""
    path = SCRIPTS / name.replace(".", "/")
    if path.name == "families":
        return sorted(path.glob("*.py"))
    for found in (path, path.parent):
        if found.with_suffix(".py").exists():
            return [found.with_suffix(".py")]
        if (found / "__init__.py").exists():
            return [found / "__init__.py"]
    raise FileNotFoundError(f"{name}: no module of the project (looked in {path.parent})")


def _is_string(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
