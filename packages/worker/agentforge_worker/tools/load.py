"""Import a tool's function from the agent's folder."""

import importlib
import importlib.machinery
import importlib.util
import inspect
import os
import sys
import threading
import types
from typing import Any, Callable, List, Optional, Sequence

from .errors import FileNotThereError, FunctionNotThereError, ImportFailedError, NotCallableError

__all__ = ["load_function"]

_lock = threading.RLock()


def load_function(root: str, file: str, name: str) -> Callable[..., Any]:
    """Return the function `name` of `file` (a posix path relative to `root`).

    The file is imported as the module its path says, once per process, with the root first on `sys.path` while it
    is imported. Modules of the root that functions import only when they are called are found too, after all others.
    Raises FileNotThereError, ImportFailedError, FunctionNotThereError, NotCallableError.
    """
    root = os.path.realpath(root)
    path = os.path.join(root, *file.split("/"))
    if not os.path.isfile(path):
        raise FileNotThereError("the file `%s` is not in the agent's folder" % file)
    found: Any = _module(root, path, file)
    for part in name.split("."):
        if not hasattr(found, part):
            raise FunctionNotThereError("the file `%s` has no function `%s`%s" % (file, name, _known(found)))
        found = getattr(found, part)
    if not callable(found) or inspect.isclass(found):
        kind = "a class" if inspect.isclass(found) else "of type `%s`" % type(found).__name__
        raise NotCallableError("`%s` in `%s` is %s: name a function" % (name, file, kind))
    return found  # type: ignore[no-any-return]


def _known(owner: Any) -> str:
    names = [name for name, value in vars(owner).items() if inspect.isroutine(value) and not name.startswith("_")]
    return " (it has %s)" % ", ".join("`%s`" % name for name in names) if names else ""


def _module(root: str, path: str, file: str) -> types.ModuleType:
    stem = file[: -len(".py")] if file.endswith(".py") else file
    name = stem.replace(".", "_").replace("/", ".")  # the dots of a file's name are no packages
    with _lock:
        if _is_at(sys.modules.get(name), path):
            return sys.modules[name]
        _finder.forget_others(root)
        sys.path.insert(0, root)
        try:
            importlib.invalidate_caches()  # files written a moment ago are found too
            return _imported(name, root, path)
        except BaseException as error:  # a module may raise anything, SystemExit too
            if isinstance(error, KeyboardInterrupt):
                raise
            text = "%s: %s" % (type(error).__name__, error)
            raise ImportFailedError("importing `%s` failed: %s" % (file, text)) from error
        finally:
            if root in sys.path:
                sys.path.remove(root)
            _finder.add(root)


def _imported(name: str, root: str, path: str) -> types.ModuleType:
    """Import a file under its plain name, or as part of a package of our own where that can't be.

    It can't be if another module has the name already (`calendar.py`), if the name is not one that Python finds
    (`my.tool.py`), or if a file at the root uses relative imports, which need a package.
    """
    taken = sys.modules.get(name.partition(".")[0])
    if taken is None or _is_below(taken, root):
        try:
            module = importlib.import_module(name)
            if _is_at(module, path):
                return module
        except ImportError as error:
            is_other_file = isinstance(error, ModuleNotFoundError) and error.name == name
            if not is_other_file and "attempted relative import" not in str(error):
                raise
            sys.modules.pop(name, None)
    return _in_own_package(name, root, path)


def _in_own_package(name: str, root: str, path: str) -> types.ModuleType:
    package = "agentforge_agent_%08x" % (hash(root) & 0xFFFFFFFF)
    if package not in sys.modules:
        made = types.ModuleType(package)
        made.__path__ = [root]
        sys.modules[package] = made
    name = package + "." + name
    if _is_at(sys.modules.get(name), path):
        return sys.modules[name]
    parent = name.rpartition(".")[0]
    importlib.import_module(parent)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError("not a Python file: %s" % path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _is_at(module: Optional[types.ModuleType], path: str) -> bool:
    file = getattr(module, "__file__", None)
    return bool(file) and os.path.realpath(str(file)) == os.path.realpath(path)


def _is_below(module: types.ModuleType, root: str) -> bool:
    places: List[str] = [str(place) for place in getattr(module, "__path__", [])]
    if getattr(module, "__file__", None):
        places.append(str(module.__file__))
    return any(os.path.realpath(place).startswith(root + os.sep) for place in places)


class _LateFinder:
    """Finds modules of the agents' folders after every other finder, for imports inside functions.

    The folders are off `sys.path` by then, so that they can't shadow a module that something else imports.
    """

    def __init__(self) -> None:
        self._roots: List[str] = []

    def add(self, root: str) -> None:
        if root in self._roots:
            self._roots.remove(root)
        self._roots.insert(0, root)
        if self not in sys.meta_path:
            sys.meta_path.append(self)

    def forget_others(self, root: str) -> None:
        """Take modules of other agents' folders out of `sys.modules`: names there are shared, agents are not."""
        others = [each for each in self._roots if each != root]
        for name, module in list(sys.modules.items()):
            if any(_is_below(module, other) for other in others):
                del sys.modules[name]

    def find_spec(
        self, name: str, path: Optional[Sequence[str]] = None, target: Optional[types.ModuleType] = None
    ) -> Optional[importlib.machinery.ModuleSpec]:
        """Return where a top-level module is; the packages' own paths find the rest."""
        if path is not None:
            return None
        return importlib.machinery.PathFinder.find_spec(name, self._roots[:1], target)


_finder = _LateFinder()
