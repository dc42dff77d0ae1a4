"""Look into Python files without running them: which names they define, which local modules they import."""

import ast
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath

from agentforge.config.source import did_you_mean

__all__ = ["local_modules", "missing_function"]

CACHED_FILES = 512


def missing_function(file: Path, function: str) -> tuple[str, str] | None:
    """Return statement and hint if a file defines no such function; None if it does or if that can't be told."""
    tree = _tree(file)
    if tree is None:
        return None
    names = _defined(tree)
    first = function.partition(".")[0]
    if names is None or first in names:
        return None
    functions = [each.name for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
    public = [name for name in functions if not name.startswith("_")]
    hint = did_you_mean(first, public) if public else f"Add `def {first}(...)` to the file."
    return f"the file `{file.name}` has no function `{first}`", hint


def local_modules(root: Path, files: Iterator[str]) -> set[str]:
    """Return the given files and every file below `root` that they import, directly or not (posix paths)."""
    found: set[str] = set()
    waiting = list(files)
    while waiting:
        file = waiting.pop()
        if file in found or not (root / file).is_file():
            continue
        found.add(file)
        tree = _tree(root / file)
        if tree is not None:
            waiting += _imported(root, PurePosixPath(file), tree)
    return found


def module_files(root: Path, module: str) -> Iterator[str]:
    """Yield the files below `root` that importing a dotted name reads: its packages' and its own."""
    path = PurePosixPath()
    for part in module.split("."):
        path = path / part
        for candidate in (path / "__init__.py", path.with_suffix(".py")):
            if (root / candidate).is_file():
                yield str(candidate)


def _imported(root: Path, file: PurePosixPath, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _importable(root, file, alias.name)
        elif isinstance(node, ast.ImportFrom):
            start = ".".join(file.parts[: -node.level]) if node.level else ""
            module = ".".join(part for part in (start, node.module) if part)
            for name in [module, *(f"{module}.{alias.name}" if module else alias.name for alias in node.names)]:
                yield from _importable(root, file, name)


def _importable(root: Path, file: PurePosixPath, module: str) -> Iterator[str]:
    if module:
        yield from module_files(root, module)


def _defined(tree: ast.Module) -> set[str] | None:
    """Return the names that a module binds at its top level, None if they can't be known."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return None if "*" in names or "__getattr__" in names or "globals" in _called(tree) else names


def _called(tree: ast.Module) -> set[str]:
    return {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}


def _tree(file: Path) -> ast.Module | None:
    stat = file.stat()
    return _parsed(file, (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size))


@lru_cache(maxsize=CACHED_FILES)
def _parsed(file: Path, version: tuple[int, ...]) -> ast.Module | None:
    """Parse a file; None if this Python can't (the tool environment's may be able to, and says so if not)."""
    try:
        return ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError):
        return None
