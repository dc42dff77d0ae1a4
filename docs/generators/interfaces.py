"""The reference of interfaces in Python, out of their classes."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from agentforge.api.client import Forge, RunHandle
from agentforge.api.result import RunEvent, RunResult
from agentforge.api.sync import SyncForge, SyncRunHandle
from agentforge_worker import adapter as module
from agentforge_worker.adapter import Adapter, AgentSpec, BuildContext, Gateway, RunContext, Source, Start
from generators.markdown import table
from generators.source import annotations, attribute_docs

__all__ = ["adapter", "python"]


def adapter() -> str:
    """The classes that an adapter meets."""
    classes = [Adapter, AgentSpec, module.ToolSpec, Start, module.Message, module.Result]
    classes += [
        Source,
        module.Natives,
        BuildContext,
        RunContext,
        module.ToolCall,
        Gateway,
        module.Probe,
        module.AgentCard,
    ]
    return "\n\n".join(map(_class, classes))


def python() -> str:
    """The classes of the Python client."""
    return "\n\n".join(map(_class, [Forge, RunHandle, RunResult, RunEvent, SyncForge, SyncRunHandle]))


def _class(kind: type) -> str:
    lines = [f"## {kind.__name__}", "", _prose(kind), ""]
    docs = attribute_docs(kind)
    attributes = [name for name in annotations(kind) if not name.startswith("_")]
    if attributes:
        rows = [(f"`{name}`", f"`{annotations(kind)[name]}`", docs.get(name, "")) for name in attributes]
        lines += [table(("attribute", "type", "what it is"), rows), ""]
    for name, member in vars(kind).items():
        if name.startswith("_"):
            continue
        function = member.__func__ if isinstance(member, staticmethod | classmethod) else member
        if isinstance(function, property):
            lines += [f"`{name}`", f": {_indented(_prose(function))}", ""]
        elif inspect.isfunction(function) and name != "from_dict":
            start = "async " if inspect.iscoroutinefunction(function) else ""
            lines += [f"`{start}{name}{_signature(function)}`", f": {_indented(_prose(function))}", ""]
    return "\n".join(lines).rstrip()


def _prose(thing: object) -> str:
    return inspect.getdoc(thing) or ""


def _indented(text: str) -> str:
    return textwrap.indent(text, "  ").lstrip()


def _signature(function: Callable[..., Any]) -> str:
    written = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(written, ast.FunctionDef | ast.AsyncFunctionDef)
    parts = [part for part in _parameters_of(written.args) if part != "self"]
    returns = f" -> {_annotation(written.returns)}" if written.returns else ""
    return f"({', '.join(parts)}){returns}"


def _parameters_of(arguments: ast.arguments) -> Iterator[str]:
    plain = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(plain) - len(arguments.defaults)) + arguments.defaults
    yield from (_parameter(*pair) for pair in zip(plain, defaults, strict=True))
    if arguments.vararg or arguments.kwonlyargs:
        yield f"*{_parameter(arguments.vararg) if arguments.vararg else ''}"
    yield from (_parameter(*pair) for pair in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True))
    if arguments.kwarg:
        yield f"**{_parameter(arguments.kwarg)}"


def _parameter(argument: ast.arg, default: ast.expr | None = None) -> str:
    text = argument.arg + (f": {_annotation(argument.annotation)}" if argument.annotation else "")
    return text + (f" = {ast.unparse(default)}" if default else "")


def _annotation(written: ast.expr) -> str:
    """Return an annotation without the quotes of forward references."""
    return ast.unparse(written).replace("'", "")
