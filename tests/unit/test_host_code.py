"""What the host's code does not do, because of where its data comes from."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import agentforge
import agentforge_worker.wire

FOLDERS = [Path(agentforge.__file__).parent, Path(agentforge_worker.wire.__file__).parent]
FILES = [file for folder in FOLDERS for file in sorted(folder.rglob("*.py"))]
UNPACKS_OBJECTS = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
RUNS_TEXT = {"eval", "exec", "compile", "__import__"}
LOADS_ANY_YAML = {"load", "load_all", "unsafe_load", "unsafe_load_all", "full_load", "full_load_all"}
LOADERS = {"Loader", "UnsafeLoader", "FullLoader", "CLoader"}


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for file in FILES:
        yield file, ast.parse(file.read_bytes(), str(file))


def imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add((node.module or "").partition(".")[0])
    return names


def called(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield owner and name of what is called: ("yaml", "load"), ("", "eval")."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                yield "", node.func.id
            elif isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
                yield node.func.value.id, node.func.attr


def faults(tree: ast.AST) -> list[str]:
    found = [f"imports {name}" for name in imported(tree) & UNPACKS_OBJECTS]
    for owner, name in called(tree):
        if not owner and name in RUNS_TEXT:
            found.append(f"calls {name}")
        if owner == "yaml" and name in LOADS_ANY_YAML:
            found.append(f"calls yaml.{name}")
        if owner == "shutil" and name == "unpack_archive":
            found.append("unpacks archives")
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return found + [f"uses yaml.{name}" for name in names & LOADERS]


def test_nothing_that_a_worker_sends_becomes_an_object_or_code() -> None:
    assert len(FILES) > 150
    found = {str(file): wrong for file, tree in trees() if (wrong := faults(tree))}
    assert found == {}


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from marshal import loads",
        "def f(x):\n    return eval(x)",
        "import yaml\nyaml.load(x)",
        "import yaml\nyaml.compose(x, Loader=yaml.UnsafeLoader)",
        "import importlib, _pickle as p",
    ],
)
def test_it_would_be_seen(code: str) -> None:
    assert faults(ast.parse(code))
