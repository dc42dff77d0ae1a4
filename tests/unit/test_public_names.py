"""Public names: what users and authors of adapters rely on is listed here; everywhere, `__all__` says what there is."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import agentforge.cli.main  # noqa: F401  first: help lists commands in the order in which modules are imported

ROOT = Path(__file__).parents[2]
FOLDERS = {
    "agentforge": ROOT / "src" / "agentforge",
    "agentforge_worker": ROOT / "packages" / "worker" / "agentforge_worker",
    "agentforge_conformance": ROOT / "packages" / "conformance" / "agentforge_conformance",
}
NOT_IMPORTED = {"__main__", "env", "observer", "versions"}
"""Programs, and files that are run by others (Alembic, an interpreter's start)."""

LISTED_ABOVE = {"agentforge.errors.tree"}
"""Modules whose package lists their names."""

PUBLIC = {
    "agentforge": {"AgentForgeError", "Forge", "RunEvent", "RunHandle", "RunResult", "__version__"},
    "agentforge.errors": {"AgentForgeError", "ErrorInfo", "InternalError", "Origin", "UsageFault"},
    "agentforge_worker.adapter": {
        "Adapter",
        "AgentCard",
        "AgentSpec",
        "BuildContext",
        "Cancelled",
        "EffectFailed",
        "Gateway",
        "MISSING",
        "Message",
        "Natives",
        "Probe",
        "Result",
        "RunContext",
        "Source",
        "Start",
        "StepLimitReached",
        "ToolCall",
        "ToolFailed",
        "ToolSpec",
        "current_run",
    },
    "agentforge_conformance.adapter": {"AdapterSuite"},
    "agentforge_conformance.store": {
        "NOW",
        "PROJECT",
        "VERSION",
        "StoreSuite",
        "effect",
        "events",
        "new_run",
        "run_of",
    },
}


def modules() -> Iterator[str]:
    for package, folder in FOLDERS.items():
        for file in sorted(folder.rglob("*.py")):
            parts = [package, *file.relative_to(folder).with_suffix("").parts]
            if not NOT_IMPORTED & set(parts[1:]) and "migrations" not in parts:
                yield ".".join(parts).removesuffix(".__init__")


@pytest.mark.feature("AF-017")
@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_names_are_the_ones_listed(name: str) -> None:
    assert set(importlib.import_module(name).__all__) == PUBLIC[name]


@pytest.mark.parametrize("name", sorted(modules()))
def test_what_a_module_lists_is_there_once(name: str) -> None:
    module = importlib.import_module(name)
    listed = getattr(module, "__all__", None)
    if listed is None:
        assert module.__file__ is not None
        assert name in LISTED_ABOVE or not _defines_something(Path(module.__file__)), (
            "a module with names lists them in `__all__`"
        )
        return
    assert [each for each in listed if not hasattr(module, each)] == []
    assert len(listed) == len(set(listed))


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    import agentforge

    with pytest.raises(AttributeError):
        agentforge.Engine  # type: ignore[attr-defined]  # noqa: B018


def _defines_something(file: Path) -> bool:
    body = ast.parse(file.read_text("utf-8")).body
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return any(isinstance(each, kinds) and not each.name.startswith("_") for each in body)
