"""The generated parts of the reference, each a function that returns Markdown (or a whole file's text)."""

import ast
import importlib
import inspect
import json
import pkgutil
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import typer
from pydantic import BaseModel

import agentforge.errors
from agentforge import __version__
from agentforge.api.app import make_app
from agentforge.api.client import Forge, RunHandle
from agentforge.api.result import RunEvent, RunResult
from agentforge.api.sync import SyncForge, SyncRunHandle
from agentforge.cli.main import app as cli_app
from agentforge.config.agent_file import AgentFile, Limits, Native, Tool
from agentforge.config.project_file import ModelConfig, ProjectConfig
from agentforge.config.settings import ModelSettings
from agentforge.engine import Engine
from agentforge.errors import AgentForgeError
from agentforge.frameworks import Capability, Manifest, ReleaseRange, TestedRelease
from agentforge_worker import adapter as adapter_module
from agentforge_worker.adapter import Adapter, AgentSpec, BuildContext, Gateway, RunContext, Source, Start
from agentforge_worker.runtime import failures

__all__ = ["BLOCKS", "FILES", "commands", "error_codes"]

DOCS = Path(__file__).parent
ROOT = DOCS.parent


# ---- the command line


def commands(command: Any = None, path: str = "agentforge") -> Iterator[tuple[str, Any]]:
    """Yield every command of the command line that does something, with what one types to reach it."""
    command = command or typer.main.get_command(cli_app)
    below = getattr(command, "commands", {})
    if not below:
        yield path, command
    for name, each in below.items():
        yield from commands(each, f"{path} {name}")


def cli() -> str:
    """Every command with its arguments and options."""
    return "\n\n".join(_command(path, command) for path, command in commands())


def _command(path: str, command: Any) -> str:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and not each.hidden]
    usage = " ".join([path, *map(_argument, arguments), "[OPTIONS]"])
    lines = [f"## {path}", "", (command.help or "").strip(), "", "```text", usage, "```", ""]
    rows = [(f"`{_argument(each)}`", each.help or "") for each in arguments]
    rows += [(_option(each), _option_help(each)) for each in options]
    lines += [_table(("argument or option", "what it does"), rows), ""]
    example = str(command.epilog or "").removeprefix("Example: ")
    if example:
        lines += ["Example:", "", "```bash", example, "```"]
    return "\n".join(lines)


def _argument(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    return name if argument.required or name.startswith("[") else f"[{name}]"


def _option(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    return names if option.is_flag else f"{names} *value*"


def _option_help(option: Any) -> str:
    text = option.help or ""
    default = option.default
    if isinstance(default, str | int) and not isinstance(default, bool) and not callable(default):
        text += f" Default: `{default}`."
    return text


# ---- what users write


def project() -> str:
    """Every setting of `agentforge.toml`."""
    parts = []
    for name, field in ProjectConfig.model_fields.items():
        if name == "models":
            heading = "## `[models.ALIAS]`"
            prefix, model = "AGENTFORGE_MODELS_ALIAS_", cast("type[BaseModel]", ModelConfig)
        else:
            heading, prefix, model = f"## `[{name}]`", f"AGENTFORGE_{name.upper()}_", cast("Any", field.annotation)
        table = _fields(model, lambda key, prefix=prefix: f"{prefix}{key.upper()}")  # type: ignore[misc]
        parts += [heading, f"{field.description}", table]
    return "\n\n".join(parts)


def agent() -> str:
    """Every key of an agent file."""
    sections = [
        ("## The file", AgentFile),
        ("## `settings`", ModelSettings),
        ("## `tools[]`", Tool),
        ("## `limits`", Limits),
        ("## `native`", Native),
    ]
    return "\n\n".join(
        f"{heading}\n\n{inspect.getdoc(model)}\n\n{_fields(cast('Any', model))}" for heading, model in sections
    )


def framework_toml() -> str:
    """Every key of a framework's manifest."""
    sections = [
        ("## The file", Manifest),
        ("## `[[releases]]`", ReleaseRange),
        ("## `tested`", TestedRelease),
        ("## `[capabilities.NAME]`", Capability),
    ]
    parts = []
    for heading, model in sections:
        docs = _attribute_docs(model)
        rows = [
            (f"`{key}`", _type(model, key), _default(field), docs.get(key, ""))
            for key, field in model.model_fields.items()
            if key != "folder"
        ]
        parts += [heading, _table(("key", "type", "default", "what it says"), rows)]
    return "\n\n".join(parts)


def _fields(model: type[BaseModel], variable: Callable[[str], str] | None = None) -> str:
    rows = []
    for key, field in model.model_fields.items():
        row = [f"`{key}`", _type(model, key), _default(field), field.description or ""]
        rows.append((*row, f"`{variable(key)}`") if variable else tuple(row))
    heads = ("key", "type", "default", "what it says")
    return _table((*heads, "variable") if variable else heads, rows)


def _type(model: type[BaseModel], key: str) -> str:
    schema = model.model_json_schema()["properties"][key]
    return _schema_type(schema)


def _schema_type(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "anyOf" in schema:
        kinds = [_schema_type(each) for each in schema["anyOf"] if each != {"type": "null"}]
        return " or ".join(dict.fromkeys(kinds))
    if "$ref" in schema or "allOf" in schema:
        return "table"
    if schema.get("type") == "array":
        return f"list of {_schema_type(schema.get('items', {}))}"
    names = {"object": "table", "string": "text", "integer": "whole number", "boolean": "true, false"}
    return names.get(schema.get("type", ""), schema.get("type", "any value"))


def _default(field: Any) -> str:
    if field.is_required():
        return "needed"
    default = field.get_default(call_default_factory=True)
    if default is None or default in ((), "", {}) or isinstance(default, BaseModel | dict):
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


# ---- interfaces


def adapter() -> str:
    """The classes that an adapter meets."""
    classes = [Adapter, AgentSpec, adapter_module.ToolSpec, Start, adapter_module.Message, adapter_module.Result]
    classes += [Source, BuildContext, RunContext, Gateway, adapter_module.Probe, adapter_module.AgentCard]
    return "\n\n".join(map(_class, classes))


def python() -> str:
    """The classes of the Python client."""
    return "\n\n".join(map(_class, [Forge, RunHandle, RunResult, RunEvent, SyncForge, SyncRunHandle]))


def _class(kind: type) -> str:
    lines = [f"## {kind.__name__}", "", _prose(kind), ""]
    docs = _attribute_docs(kind)
    attributes = [name for name in _annotations(kind) if not name.startswith("_")]
    if attributes:
        rows = [(f"`{name}`", f"`{_annotations(kind)[name]}`", docs.get(name, "")) for name in attributes]
        lines += [_table(("attribute", "type", "what it is"), rows), ""]
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
    arguments = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(arguments, ast.FunctionDef | ast.AsyncFunctionDef)
    returns = f" -> {ast.unparse(arguments.returns)}" if arguments.returns else ""
    return f"({ast.unparse(arguments.args)}){returns}".replace("'", "").replace("(self, ", "(").replace("(self)", "()")


def _annotations(kind: type) -> dict[str, str]:
    body = _class_body(kind)
    found = (each for each in body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name))
    return {cast("ast.Name", each.target).id: ast.unparse(each.annotation) for each in found}


def _attribute_docs(kind: type) -> dict[str, str]:
    """Return the docstrings that follow a class's attributes."""
    body = _class_body(kind)
    docs = {}
    for each, after in zip(body, body[1:], strict=False):
        is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name) and is_text:
            docs[each.target.id] = inspect.cleandoc(str(cast("Any", after).value.value))
    return docs


def _class_body(kind: type) -> list[ast.stmt]:
    found = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(found, ast.ClassDef)
    return found.body


# ---- the HTTP API


def _openapi() -> dict[str, Any]:
    app = make_app(cast("Engine", None), dict, lambda: None)  # only requests would need the engine
    return app.openapi()


def openapi() -> str:
    """The OpenAPI document of a host."""
    return json.dumps(_openapi(), indent=2, ensure_ascii=False) + "\n"


def api() -> str:
    """Every route."""
    rows = []
    for path, methods in _openapi()["paths"].items():
        for method, route in methods.items():
            rows.append((f"`{method.upper()} {path}`", route["summary"], _parameters(route)))
    return _table(("request", "answer", "parameters"), rows)


def _parameters(route: dict[str, Any]) -> str:
    found = [f"`{each['name']}`" for each in route.get("parameters", []) if each["in"] != "path"]
    body = route.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if "$ref" in body:
        found.insert(0, f"body `{body['$ref'].rpartition('/')[2]}`")
    return ", ".join(found)


# ---- errors and features


def error_codes() -> dict[str, str]:
    """Return every code that a user can meet, with the class (or the part) that it comes from."""
    for module in pkgutil.iter_modules(agentforge.errors.__path__):
        importlib.import_module(f"agentforge.errors.{module.name}")
    found = {kind.code: kind.__name__ for kind in _subclasses(AgentForgeError) if "code" in vars(kind)}
    for code in re.findall(r'"(AF\d{3})"', inspect.getsource(failures)):
        found.setdefault(code, "the worker")
    found.setdefault("AF709", "RunResult.check")
    return dict(sorted(found.items()))


def _subclasses(kind: type[AgentForgeError]) -> Iterator[type[AgentForgeError]]:
    for each in kind.__subclasses__():
        yield each
        yield from _subclasses(each)


_LAYERS = {
    "1": "Agent files and `agentforge.toml`",
    "2": "Frameworks",
    "3": "Environments",
    "4": "Workers",
    "5": "Models",
    "6": "Tools",
    "7": "Runs",
    "8": "The store",
    "9": "Host, API and command line",
}


def errors() -> str:
    """Every code with the title of its page."""
    parts = []
    for layer, title in _LAYERS.items():
        codes = [code for code in error_codes() if code[2] == layer]
        rows = [(f"[{code}]({code}.md)", _title(code), f"`{error_codes()[code]}`") for code in codes]
        parts += [f"## {title} (AF{layer}xx)", _table(("code", "what happened", "class"), rows)]
    return "\n\n".join(parts)


def _title(code: str) -> str:
    page = DOCS / "errors" / f"{code}.md"
    first = page.read_text("utf-8").splitlines()[0] if page.exists() else ""
    return first.removeprefix(f"# {code}: ")


def feature_tests() -> dict[str, list[str]]:
    """Return the test files that hold each feature, by its id."""
    found: dict[str, set[str]] = {}
    places = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "packages" / "conformance").rglob("*.py")]
    for file in places:
        for feature in re.findall(r'mark\.feature\("(AF-\d{3})"\)', file.read_text("utf-8")):
            found.setdefault(feature, set()).add(str(file.relative_to(ROOT)))
    return {feature: sorted(files) for feature, files in sorted(found.items())}


def features() -> str:
    """Which tests hold which feature."""
    rows = [(feature, ", ".join(f"`{file}`" for file in files)) for feature, files in feature_tests().items()]
    return _table(("feature", "tests"), rows)


def frameworks() -> str:
    """Every shipped framework with its capabilities."""
    from agentforge.frameworks import Catalogue

    catalogue = Catalogue.discover()
    parts = []
    for name in catalogue.names():
        manifest = catalogue.get(name)
        releases = ", ".join(f"`{release.version}`" for release in catalogue.releases(name))
        covers = "; ".join(f"`{each.versions}` on Python `{each.python}`" for each in manifest.releases)
        rows = [(key, value.level, value.note) for key, value in manifest.capabilities.items()]
        text = f"## {name}\n\n{manifest.summary}\n\nTested releases: {releases}. The adapter covers {covers}."
        parts.append(f"{text}\n\n{_table(('capability', 'level', 'note'), rows)}")
    return "\n\n".join(parts)


def _table(heads: tuple[str, ...], rows: list[Any]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


BLOCKS: dict[str, Callable[[], str]] = {
    "adapter": adapter,
    "agent": agent,
    "api": api,
    "cli": cli,
    "errors": errors,
    "features": features,
    "framework_toml": framework_toml,
    "frameworks": frameworks,
    "project": project,
    "python": python,
    "version": lambda: f"This is the documentation of AgentForge {__version__}.",
}
FILES: dict[str, Callable[[], str]] = {"reference/openapi.json": openapi}
