"""Digests of a job's code: Snakemake reruns the job when its digest changes."""

import ast
import contextlib
import functools
import hashlib
import json
import os
import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2]

NO_RESULT = {
    "mllm/core/code_digest.py": "it makes the digests; another way to make them changes every digest",
    "mllm/core/compute.py": "it asks what the machine has, refuses what cannot run, and keeps freed memory longer",
    "mllm/core/errors.py": "it is the type of errors; a job that fails leaves no result",
    "mllm/core/messages.py": "it writes log lines and progress bars",
    "mllm/core/node_cache.py": "it reads the same bytes from a local disk",
    "mllm/core/script.py": "it handles a process's arguments, log, exit status and network",
    "mllm/core/wording.py": "it words errors; no result is written with it",
    "mllm/models/training_progress.py": "it is a training's progress bar",
}
"""Modules that can change no result, with the reason: editing one makes no job stale. They import each other only."""


def code_digest(script: str, *modules: str) -> str:
    """Return the digest of a script and of all project modules that it imports, directly or not.

    The digest covers the syntax trees. It leaves out what cannot change a result: docstrings, comments, the texts of
    errors, log lines and ``--help``, and the modules in :data:`NO_RESULT`.

    Args:
        script: name under ``workflow/scripts``, without ``.py``.
        modules: modules that the job loads by name, such as ``mllm.models.families.causal``.
    """
    seen: dict[Path, str] = {}
    _collect(SCRIPTS / f"{script}.py", seen)
    for name in modules:
        for path in _files(name):
            _collect(path, seen)
    _remember()
    joined = "".join(f"{path.relative_to(SCRIPTS)}:{digest}\n" for path, digest in sorted(seen.items()))
    return hashlib.sha256(joined.encode()).hexdigest()[:16]


def _collect(path: Path, seen: dict[Path, str]) -> None:
    if path in seen or path.relative_to(SCRIPTS).as_posix() in NO_RESULT:
        return
    seen[path], imports = _meaning(path)
    for module in imports:
        _collect(module, seen)


@functools.cache
def _meaning(path: Path) -> tuple[str, tuple[Path, ...]]:
    """Return the digest of one file, and the project's files that it imports."""
    text = path.read_bytes()
    key, known = hashlib.sha256(text).hexdigest(), _known()
    if key not in known:
        known[key] = _read(text, path)
    digest, imports = known[key]
    return digest, tuple(sorted({file for name in imports for file in _files(name)}))


def _read(text: bytes, path: Path) -> tuple[str, list[str]]:
    """Return the digest of a file's text, and the project's modules that it imports."""
    tree = ast.parse(text, str(path))
    imports = set()
    for node in ast.walk(tree):
        _forget_words(node)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mllm":
            imports |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            imports |= {alias.name for alias in node.names if alias.name.split(".")[0] == "mllm"}
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), sorted(imports)


# Parsing all files takes 0.3 s at each start, so that the results are cached beside Python's own caches.
@functools.cache
def _known() -> dict[str, tuple[str, list[str]]]:
    """Return SHA-256 of a file's text -> result of :func:`_read`, for this version of this module and of Python."""
    with contextlib.suppress(OSError, ValueError):
        found: dict[str, tuple[str, list[str]]] = json.loads(_kept().read_text())
        _sizes[0] = len(found)
        return found
    return {}


_sizes = [0]  # number of entries in the cache on the disk


@functools.cache
def _kept() -> Path:
    own = hashlib.sha256(Path(__file__).read_bytes() + sys.version.encode()).hexdigest()[:16]
    return Path(__file__).parent / f"__pycache__/code_digests-{own}.json"


def _remember() -> None:
    """Cache the digests for the next start; if the cache cannot be written, the next start parses again."""
    if len(_known()) > _sizes[0]:
        _sizes[0] = len(_known())
        with contextlib.suppress(OSError):
            _kept().parent.mkdir(exist_ok=True)
            partial = _kept().with_suffix(f".{os.getpid()}")
            partial.write_text(json.dumps(_known()))
            partial.replace(_kept())


def _forget_words(node: ast.AST) -> None:
    """Remove from a syntax tree's node what only people and type checkers read."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        # A lone string is a docstring (of a module, class, function or attribute).
        node.body = [n for n in node.body if not _is_string(n)] or [ast.Pass()]
    elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        node.body = [ast.Pass()]
    elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        node.exc.args = []
    elif isinstance(node, ast.Call):
        match node.func:
            case ast.Name("Failure") | ast.Attribute(ast.Name("log"), "info" | "warning" | "error"):
                node.args, node.keywords = [], []
            case ast.Name("progress"):
                node.args, node.keywords = node.args[:1], []
            case ast.Attribute(_, "add_argument" | "ArgumentParser"):
                node.keywords = [k for k in node.keywords if k.arg != "help"]


def _files(name: str) -> list[Path]:
    """Return the file of ``mllm.room.module`` or ``mllm.room.module.attribute``."""
    path = SCRIPTS / name.replace(".", "/")
    for found in (path, path.parent):
        if found.with_suffix(".py").exists():
            return [found.with_suffix(".py")]
        if (found / "__init__.py").exists():
            return [found / "__init__.py"]
    raise FileNotFoundError(f"{name}: not a module of the project (searched {path.parent})")


def _is_string(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
