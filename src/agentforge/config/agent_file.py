"""What an agent file may say."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, Strict, field_validator, model_validator

from agentforge.config.checking import Section, refusal
from agentforge.config.project_file import Paths, ResourceLimits, SandboxLevel
from agentforge.config.requirement import PackageLines
from agentforge.config.settings import ModelSettings, one_or_many
from agentforge.errors.config import ConflictingKeysError, MissingKeyError, OutputSchemaError

__all__ = ["AgentFile", "Limits", "Native", "Permissions", "Tool", "schema_problem"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_TOOL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_FUNCTION = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
_TOOL = re.compile(rf"(?P<file>[^:]+\.py):(?P<function>{_FUNCTION})")
_ENTRYPOINT = re.compile(rf"{_FUNCTION}:{_FUNCTION}")
_FRAMEWORK = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*(?:@\d+(?:\.\w+)*|==\d[\w.+!-]*)?")
_HOST_PORT = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]):(\d{1,5})")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OUR_VARIABLES = re.compile(
    r"PATH|HOME|TMPDIR|LANG|TZ|LC_.*|LD_.*|PYTHON.*|XDG_.*|AGENTFORGE_.*|.*_PROXY", re.IGNORECASE
)
"""What workers are given by the host: a secret of such a name would change how they run."""
_NOT_WITH_NATIVE = ("instructions", "role", "goal", "backstory", "settings", "tools", "framework", "framework_settings")


def inside(path: str) -> bool:
    """Return whether a relative posix path stays in its folder."""
    return not path.startswith("/") and ".." not in path.split("/") and "\\" not in path and "\0" not in path


def _checked_tool(value: str) -> str:
    found = _TOOL.fullmatch(value)
    if found is None:
        hint = "Write the file, a colon and the function, for example `tools.py:total_for`."
        raise refusal(f"is `{value}`, which is not `file.py:function`", hint)
    if not inside(found["file"]):
        hint = "Move the file beside the agent file: an agent version holds its own folder only."
        raise refusal(f"is `{value}`, which leaves the agent's folder", hint)
    return value


def _checked_entrypoint(value: str) -> str:
    if not _ENTRYPOINT.fullmatch(value):
        module = value.partition(":")[0].removesuffix(".py").replace("/", ".")
        function = value.partition(":")[2] or "make_agent"
        hint = f"Write the module, a colon and the object or function in it, for example `{module}:{function}`."
        raise refusal(f"is `{value}`, which is not `module:attribute`", hint)
    return value


def _checked_framework(value: str) -> str:
    if not _FRAMEWORK.fullmatch(value):
        hint = "Write `langchain`, `langchain@0.3` (newest of a series), `langchain==0.3.27`, or `auto`."
        raise refusal(f"is `{value}`, which names no framework", hint)
    return value


def _checked_host_port(value: str) -> str:
    found = _HOST_PORT.fullmatch(value)
    if found is None or not 0 < int(found[1]) < 65536:
        hint = "Write a host and a port, for example `api.example.com:443`."
        raise refusal(f"is `{value}`, which is not `host:port`", hint)
    return value


def _checked_variable(value: str) -> str:
    if not _VARIABLE.fullmatch(value):
        hint = "Write the name of an environment variable, for example `STRIPE_KEY`; never the secret itself."
        raise refusal("is a text (not shown) that can't be the name of an environment variable", hint)
    if _OUR_VARIABLES.fullmatch(value):
        hint = "Give the secret a name of its own, for example `STRIPE_KEY`."
        raise refusal(f"is `{value}`, a variable that decides how a worker runs", hint)
    return value


def _checked_tool_name(value: str) -> str:
    if not _TOOL_NAME.fullmatch(value):
        hint = "Begin with a letter or `_`; use up to 64 letters, digits, `_` and `-`."
        raise refusal(f"is `{value}`, which can't be a tool's name", hint)
    return value


def _checked_glob(value: str) -> str:
    if not value or not inside(value):
        hint = "Write patterns relative to the agent file, for example `src/**/*.py`."
        raise refusal(f"is `{value}`, which leaves the agent's folder", hint)
    return value


ToolReference = Annotated[str, AfterValidator(_checked_tool)]
FrameworkReference = Annotated[str, AfterValidator(_checked_framework)]
Frameworks = Annotated[
    tuple[FrameworkReference, ...],
    Strict(False),
    BeforeValidator(one_or_many, json_schema_input_type=str | list[str]),
]
HostPorts = Annotated[tuple[Annotated[str, AfterValidator(_checked_host_port)], ...], Strict(False)]
Globs = Annotated[tuple[Annotated[str, AfterValidator(_checked_glob)], ...], Strict(False)]
CODE_TOOL_NAME = "run_python"
FilledText = Annotated[str, Field(min_length=1)]


class Tool(Section):
    """Something that the agent can call: a python function, or with `code` whatever code the model writes."""

    python: ToolReference | None = None
    """File and function, `tools.py:total_for`; the path is relative to the agent file."""
    code: Literal["python"] | None = None
    """In place of a function, a tool that runs the model's own code in a sandbox: `python`; see `permissions.code`."""
    name: Annotated[str, AfterValidator(_checked_tool_name)] | None = None
    """What the model knows a `code` tool by (default: `run_python`); a function has its own name."""
    idempotent: bool = False
    """Whether it may be repeated if it was in flight at a crash."""
    approval: Literal["never", "always"] = "never"
    """Whether a call waits for a human: `never` or `always`."""
    timeout_s: Annotated[float, Field(gt=0)] = 60.0
    """Seconds that one call may take."""
    on_error: Literal["fail", "tell"] = "fail"
    """What a failing call does: `fail` ends the run, `tell` (default with `code`) gives the model the error's text."""

    @model_validator(mode="before")
    @classmethod
    def _code_tells(cls, data: Any) -> Any:
        """Have what the model did wrong be the model's to mend, unless the user says otherwise."""
        is_code = isinstance(data, dict) and data.get("code") is not None
        return {"on_error": "tell", **data} if is_code else data

    @model_validator(mode="after")
    def _a_function_or_code(self) -> Self:
        if self.python is None and self.code is None:
            hint = "Add `python: tools.py:my_function`, or `code: python` for a tool that runs the model's own code."
            raise refusal("`python` is missing", hint, MissingKeyError, key="python")
        if self.python is not None and self.code is not None:
            hint = "Make two tools of it: `- python: ...` and `- code: python`."
            raise refusal("`python` and `code` exclude each other", hint, ConflictingKeysError, key="code")
        if self.python is not None and self.name is not None:
            statement = "`name` goes with `code` only: the model knows a function by its own name"
            hint = "Remove `name`, or rename the function."
            raise refusal(statement, hint, ConflictingKeysError, key="name")
        return self

    @property
    def file(self) -> str:
        """The path of a function's file relative to the agent's folder; empty for `code`."""
        return (self.python or "").rpartition(":")[0]

    @property
    def function(self) -> str:
        """A function's name in its file; empty for `code`."""
        return (self.python or "").rpartition(":")[2]

    @property
    def known_as(self) -> str:
        """What the model knows the tool by."""
        return self.name or self.function.rpartition(".")[2] or CODE_TOOL_NAME


class Permissions(Section):
    """What the agent's tools may do; for a native agent, which has its tools within it, what it may do itself."""

    read: Paths = ()
    """Files and folders that the tools may read, absolute or relative to the project."""
    write: Paths = ()
    """Folders that the tools may write, absolute or relative to the project."""
    network: HostPorts = ()
    """`host:port` pairs that the tools may reach."""
    secrets: Annotated[tuple[Annotated[str, AfterValidator(_checked_variable)], ...], Strict(False)] = ()
    """Environment variables of whoever starts the run that the tools get, by name."""
    code: Literal["deny", "ask", "allow"] = "deny"
    """Whether the model may run code with the tool `code: python`: `deny`, `ask` (a human allows each), `allow`."""


class Limits(ResourceLimits):
    """What one run may use up; a run that goes beyond ends as failed."""

    steps: Annotated[int, Field(ge=1)] | None = None
    """Most model calls of one run."""
    time_s: Annotated[float, Field(gt=0)] | None = None
    """Most seconds of one run."""
    tokens: Annotated[int, Field(ge=1)] | None = None
    """Most tokens of one run, input and output together."""
    cost_usd: Annotated[float, Field(gt=0)] | None = None
    """Most money of one run, in US dollars."""


class Native(Section):
    """The user's own agent code, run unchanged."""

    framework: FrameworkReference
    """Framework that the code is written for: a name, `name@series` or `name==version`."""
    entrypoint: Annotated[str, AfterValidator(_checked_entrypoint)]
    """Module and object, `my_project.crew:make_crew`; a function without arguments, `async` or not, makes it."""
    tools_idempotent: bool = False
    """Whether recovery may repeat the agent's own tools."""


class AgentFile(Section):
    """An agent: portable (`instructions` and `tools`, runs on any framework) or native (your own code)."""

    name: str
    """The agent's name: a letter, then letters, digits, `_` and `-`."""
    description: str = ""
    """What the agent is for, in a sentence."""
    instructions: FilledText | None = None
    """What the model is told before the conversation."""
    role: FilledText | None = None
    """Who the agent is; used where the framework has it, else folded into the instructions."""
    goal: FilledText | None = None
    """What the agent is after; used where the framework has it, else folded into the instructions."""
    backstory: FilledText | None = None
    """Where the agent comes from; used where the framework has it, else folded into the instructions."""
    model: FilledText = "default"
    """Alias of a model of the project, `local`, or `provider:model`."""
    settings: ModelSettings = ModelSettings()
    """Sampling settings; they win over those of the model's alias."""
    cache: bool | None = None
    """Whether recorded answers of the model serve identical requests (default: if its alias sets `cache_ttl_s`)."""
    tools: Annotated[tuple[Tool, ...], Strict(False)] = ()
    """What the agent can call: functions, and code that the model writes."""
    output: dict[str, Any] | None = None
    """JSON Schema of the answer; without it the answer is text."""
    limits: Limits = Limits()
    """What one run may use up."""
    framework: Frameworks | None = None
    """Framework that runs the agent: `name`, `name@series`, `name==version`, a list of them, or `auto` (default)."""
    native: Native | None = None
    """Your own agent code, in place of `instructions` and `tools`."""
    framework_settings: dict[str, Any] = {}
    """Settings of the framework; a key that is a framework's name holds those for that framework alone."""
    requirements: PackageLines = ()
    """Extra packages in the framework's environment; paths (`./mylib`) are relative to the agent file."""
    network: HostPorts = ()
    """`host:port` pairs that the worker may reach besides the gateway."""
    permissions: Permissions = Permissions()
    """What the agent's tools may do."""
    sandbox: SandboxLevel | None = None
    """How the worker is fenced in: `strict`, `standard` or `none` (default: the project's level)."""
    files: Globs | None = None
    """Patterns of the files that belong to the agent (default: everything in its folder)."""

    @staticmethod
    def portable_keys() -> tuple[str, ...]:
        """Return the keys that a native agent must not have."""
        return _NOT_WITH_NATIVE

    @field_validator("name")
    @classmethod
    def _a_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            hint = "Begin with a letter; use up to 64 letters, digits, `_` and `-`."
            raise refusal(f"is `{value}`, which can't be an agent's name", hint)
        return value

    @field_validator("output")
    @classmethod
    def _a_json_schema(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        wrong = None if value is None else schema_problem(value)
        if wrong:
            hint = "Write a JSON Schema, for example `{type: object, properties: {total: {type: number}}}`."
            raise refusal(f"is not a JSON Schema: {wrong}", hint, OutputSchemaError)
        return value

    @field_validator("framework")
    @classmethod
    def _a_list_that_makes_sense(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value == ():
            raise refusal("is an empty list", "Name a framework, or leave the key out.")
        if value and "auto" in value and len(value) > 1:
            raise refusal("has `auto` among others", "Write `auto` alone, or the frameworks without it.")
        if value and len(set(value)) < len(value):
            raise refusal("names a framework twice", "Remove one of the two.")
        return value

    @field_validator("tools")
    @classmethod
    def _names_differ(cls, value: tuple[Tool, ...]) -> tuple[Tool, ...]:
        names = [tool.known_as for tool in value]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise refusal(f"has two tools called `{twice}`", "Rename one: the model calls tools by name.")
        return value

    @model_validator(mode="after")
    def _portable_or_native(self) -> Self:
        if self.native is None:
            if self.instructions is None:
                hint = "Add `instructions: ...`, or `native: {framework: ..., entrypoint: ...}` for your own code."
                raise refusal("`instructions` is missing", hint, MissingKeyError, key="instructions")
            return self
        for key in _NOT_WITH_NATIVE:
            if key in self.model_fields_set:
                statement = f"`{key}` and `native` exclude each other"
                hint = f"Remove `{key}` (the code of a native agent says that itself), or remove `native`."
                raise refusal(statement, hint, ConflictingKeysError, key=key)
        return self


def schema_problem(schema: dict[str, Any]) -> str | None:
    """Return why something is not a JSON Schema, None if it is one."""
    from jsonschema import SchemaError  # slow to import, and most agents have no output schema
    from jsonschema.validators import validator_for

    dialect = validator_for(schema)
    try:
        dialect.check_schema(schema)
    except SchemaError as error:
        where = "/".join(str(part) for part in error.absolute_path)
        return (f"at `{where}`: " if where else "") + error.message
    return _dangling_reference(schema, dialect.META_SCHEMA["$schema"])


def _dangling_reference(schema: dict[str, Any], dialect: str) -> str | None:
    """Return what is wrong with the first `$ref` that leads nowhere; nothing is fetched for one."""
    from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import specification_with

    root = specification_with(dialect).create_resource(schema)
    pending = [(root, REGISTRY.with_resource("", root).resolver_with_root(root))]
    while pending:
        part, resolver = pending.pop()
        if not isinstance(part.contents, dict):
            continue
        for key in ("$ref", "$dynamicRef"):
            try:
                found = resolver.lookup(part.contents.get(key, "#")).contents
            except (Unresolvable, ValueError, TypeError):  # the latter two: for a path through what has no parts
                found = None
            if not isinstance(found, dict | bool):
                return f"`{key}: {part.contents[key]}` leads nowhere"
        pending += [(each, resolver.in_subresource(each)) for each in part.subresources()]
    return None
