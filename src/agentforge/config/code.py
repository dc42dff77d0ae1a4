"""Look into Python files without running them: which names they define, which local modules they import."""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from agentforge.config.reading import FileVersion, file_version
from agentforge.config.source import did_you_mean

__all__ = ["local_modules", "missing_function", "module_files"]

CACHED_FILES = 512
_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")


@dataclass(frozen=True, slots=True)
class Import:
    """An import statement: `level` dots, the module, and the names taken from it."""

    level: int
    module: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outline:
    """What a module says about itself. `names` is None if they are known only when it runs."""

    names: frozenset[str] | None
    functions: tuple[str, ...]
    imports: tuple[Import, ...]


def missing_function(file: Path, function: str) -> tuple[str, str] | None:
    """Return statement and hint if a file defines no such function; None if it does or if that can't be told."""
    outline = _outline(file, file_version(file))
    first = function.partition(".")[0]
    if outline is None or outline.names is None or first in outline.names:
        return None
    public = [name for name in outline.functions if not name.startswith("_")]
    hint = did_you_mean(first, public) if public else f"Add `def {first}(...)` to the file."
    return f"the file `{file.name}` has no function `{first}`", hint


def local_modules(root: Path, files: Iterable[str]) -> set[str]:
    """Return the given files and every file below `root` that they import, directly or not (posix paths)."""
    found: set[str] = set()
    waiting = list(files)
    while waiting:
        file = waiting.pop()
        path = root / file
        if file in found or not path.is_file():
            continue
        found.add(file)
        outline = _outline(path, file_version(path))
        for each in outline.imports if outline else ():
            for module in _modules(PurePosixPath(file), each):
                waiting += module_files(root, module)
    return found


def module_files(root: Path, module: str) -> Iterator[str]:
    """Yield the files below `root` that importing a dotted name reads: its packages' and its own."""
    path = PurePosixPath()
    for part in module.split("."):
        path = path / part
        for candidate in (path / "__init__.py", path.with_name(f"{part}.py")):
            if (root / candidate).is_file():
                yield str(candidate)


def _modules(file: PurePosixPath, statement: Import) -> Iterator[str]:
    """Yield the dotted names that an import may load; a name taken from a package may be a module of it."""
    package = ".".join(file.parts[: -statement.level]) if statement.level else ""
    module = ".".join(part for part in (package, statement.module) if part)
    if module:
        yield module
    for name in statement.names:
        yield f"{module}.{name}" if module else name


@lru_cache(maxsize=CACHED_FILES)
def _outline(file: Path, version: FileVersion) -> Outline | None:
    """Parse a file; None if this Python can't (the tool environment's may be able to, and says so if not)."""
    try:
        tree = ast.parse(file.read_bytes())
        return Outline(_defined(tree), _functions(tree), tuple(_imports(tree)))
    except (SyntaxError, ValueError, RecursionError):
        return None


def _functions(tree: ast.Module) -> tuple[str, ...]:
    return tuple(node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _imports(tree: ast.Module) -> Iterator[Import]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Import(0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = tuple(alias.name for alias in node.names if alias.name != "*")
            yield Import(node.level, node.module or "", names)


def _defined(tree: ast.Module) -> frozenset[str] | None:
    names: set[str] = set()
    for node in _top_level(tree.body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        else:
            names |= _assigned(node)
    return None if names & {"*", "__getattr__", "globals", "setattr"} else frozenset(names)


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield a module's statements, those inside `if`, `try`, `with` and loops too, but not functions' own."""
    for node in body:
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        for block in _BLOCKS:
            yield from _top_level(getattr(node, block, []))


def _assigned(node: ast.AST) -> set[str]:
    """Return the names that a statement binds; a call of `globals` or `setattr` may bind any."""
    names = [each for each in ast.walk(node) if isinstance(each, ast.Name)]
    calls = {each.id for each in names if each.id in ("globals", "setattr")}
    return calls | {each.id for each in names if isinstance(each.ctx, ast.Store)}
