"""The adapter interface: what a framework's folder implements and what the runtime hands to it.

An adapter turns a portable agent into the framework's own object (`build`), or loads a user's own object
(`load`), says what it is (`describe`) and runs it (`run`). The runtime calls every method in the worker process:
`build`, `load` (awaited), `describe` and `close` on the event loop's thread; `run` on the loop when it is a coroutine
function, else in a thread of its own. An adapter catches nothing: the runtime translates foreign exceptions once.

Standard library only, Python 3.8 syntax.
"""

import asyncio
import contextvars
import inspect
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import (
    Any,
    Awaitable,
    Callable,
    ClassVar,
    Dict,
    Generic,
    List,
    Mapping,
    Optional,
    Sequence,
    TypeVar,
    Union,
)

from agentforge_worker.entrypoint import Natives, imported
from agentforge_worker.exceptions import Cancelled, EffectFailed, StepLimitReached, ToolFailed

__all__ = [
    "MISSING",
    "Adapter",
    "AgentCard",
    "AgentSpec",
    "BuildContext",
    "Cancelled",
    "EffectFailed",
    "Gateway",
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
]

AgentT = TypeVar("AgentT")
Json = Any
"""A value that JSON can hold."""


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING: Any = _Missing()
"""Stands for a default that was not given, where None is one."""


@dataclass(frozen=True)
class ToolSpec:
    """A tool that lives outside the framework; calling it is `ctx.call_tool(name, arguments)`."""

    name: str
    description: str
    parameters: Dict[str, Json]
    """JSON Schema (draft 2020-12) of the arguments, always an object."""


@dataclass(frozen=True)
class AgentSpec:
    """A portable agent as the runtime hands it to `build`: every default filled in, every reference resolved."""

    name: str
    instructions: str
    model: str
    """The model's name as it goes over the wire."""
    description: str = ""
    role: Optional[str] = None
    goal: Optional[str] = None
    backstory: Optional[str] = None
    settings: Dict[str, Json] = field(default_factory=dict)
    """Sampling settings that were set: temperature, max_tokens, top_p, stop, seed, ..."""
    tools: List[ToolSpec] = field(default_factory=list)
    output: Optional[Dict[str, Json]] = None
    """JSON Schema of the answer, or None for text."""
    max_steps: Optional[int] = None
    framework_settings: Dict[str, Json] = field(default_factory=dict)

    @property
    def prompt(self) -> str:
        """The instructions with role, goal and backstory in front: for frameworks that have no place of their own."""
        parts = [
            ("You are %s.", self.role),
            ("Your goal: %s", self.goal),
            ("%s", self.backstory),
            ("%s", self.instructions),
        ]
        return "\n".join(form % text.strip() for form, text in parts if text and text.strip())


@dataclass(frozen=True)
class Source:
    """A native agent: the user's own code, unchanged."""

    root: str
    """Folder of the agent version's files; on `sys.path` while the module is imported."""
    module: str
    attribute: str


@dataclass(frozen=True)
class Message:
    """One message of a conversation in the neutral form that any framework can continue."""

    role: str
    """system | user | assistant | tool"""
    content: str
    tool_calls: List[Dict[str, Json]] = field(default_factory=list)
    """[{"id", "name", "arguments"}], on assistant messages."""
    tool_call_id: Optional[str] = None


@dataclass(frozen=True)
class Start:
    """A request to run an agent from the beginning."""

    input: Json
    """Text for portable agents; any JSON value for native ones."""
    messages: List[Message] = field(default_factory=list)
    """The thread so far, oldest first, without the input."""
    stream: bool = False
    """The caller watches tokens: use the framework's streaming if it has one."""
    continues: bool = False
    """There is no new input: the conversation goes on from the last of `messages`. Set when a run that another
    framework began is taken over."""

    @property
    def text(self) -> str:
        """The input as text (JSON for other values)."""
        if isinstance(self.input, str):
            return self.input
        import json

        return json.dumps(self.input, ensure_ascii=False)


@dataclass(frozen=True)
class Result:
    """What a run ended with."""

    output: Json
    """Text, or a JSON value when the agent has an output schema or is native."""
    messages: List[Message] = field(default_factory=list)
    """The messages this run added to the thread (after the input); empty: the answer alone is added."""
    state: Optional[Json] = None
    """Native state worth keeping beside the thread."""


@dataclass(frozen=True)
class Probe:
    """What the environment really holds."""

    version: str
    details: Dict[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class AgentCard:
    """What an agent is, without running it."""

    name: str
    description: str = ""
    tools: List[str] = field(default_factory=list)
    models: List[str] = field(default_factory=list)
    details: Dict[str, Json] = field(default_factory=dict)


class Gateway:
    """The door to the models: an OpenAI-compatible endpoint on this process's own loopback.

    `token` is valid for the current run alone. Cached clients must read it per request (an HTTP auth hook,
    a callable key); `base_url` stays the same for the life of the process.
    """

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url

    @property
    def token(self) -> str:
        """The current run's token. Raises LookupError outside a run."""
        return current_run().token


class RunContext(ABC):
    """What a run can do besides computing. Given to `run`, never subclassed by adapters.

    The async methods may be awaited on the worker's loop; a blocking adapter (its `run` is a plain function
    and runs in a thread) uses `ctx.wait(ctx.call_tool(...))`.
    """

    run_id: str
    attempt: int
    """Which try of the run this is, from 1. A later one repeats what the journal knows and goes on from there."""
    token: str
    workspace: str
    """Folder of this run, kept across attempts. It is the working directory only where runs go one at a time."""
    gateway: Gateway
    spec: Optional[AgentSpec]
    """The portable agent that runs; None for a native one."""
    request: Start
    """What the run was asked."""

    @abstractmethod
    def emit(self, kind: str, data: Mapping[str, Json]) -> None:
        """Send an event (step.started, step.finished, message.added, handoff.made). Thread-safe, never blocks."""

    @abstractmethod
    def step(self, name: str, **data: Json) -> "StepScope":
        """Return a context manager that emits step.started and step.finished around a block."""

    @abstractmethod
    def call_tool(self, name: str, arguments: Mapping[str, Json]) -> Awaitable[Json]:
        """Call a declared tool through the host. Raises `ToolFailed` when it fails."""

    @abstractmethod
    def chat(self, messages: Sequence[Mapping[str, Json]], **request: Json) -> Awaitable[Dict[str, Json]]:
        """Make one chat-completions request through the gateway; returns the response object.

        For code with no client of its own (the `python` adapter); frameworks keep theirs.
        """

    @abstractmethod
    def tool_effect(
        self,
        name: str,
        arguments: Mapping[str, Json],
        call: Callable[..., Any],
        *,
        idempotent: bool = False,
    ) -> Awaitable[Json]:
        """Call a tool of the agent's own, once: a later attempt is given what it returned or raised.

        `call` is a coroutine function, or a plain one that runs in a thread; it takes no arguments, or the
        `idempotency_key` alone. What it returns is kept, and returned, as a JSON value. `idempotent`: it may be
        called again when the worker died while it ran; without that the run then waits for a human.
        Raises what `call` raises; in a later attempt an exception of the same class where it can be made again,
        else `ToolFailed`.
        """

    @abstractmethod
    def begin_tool(
        self, name: str, arguments: Mapping[str, Json], *, idempotent: bool = False
    ) -> "Awaitable[ToolCall]":
        """Do the first half of `tool_effect`: for a framework that tells before and after a call, and not around it."""

    @abstractmethod
    def tool_effect_blocking(
        self,
        name: str,
        arguments: Mapping[str, Json],
        call: Callable[..., Any],
        *,
        idempotent: bool = False,
    ) -> Json:
        """Do as `tool_effect` from a thread that is not the loop's; `call` is a plain function and runs right there."""

    @abstractmethod
    def ask(
        self,
        question: str,
        *,
        options: Optional[Sequence[Json]] = None,
        schema: Optional[Mapping[str, Json]] = None,
        timeout_s: Optional[float] = None,
        default: Json = MISSING,
    ) -> Awaitable[Json]:
        """Ask a human, and return the answer; the run holds no worker meanwhile (see `Cancelled`).

        `options` are the answers to choose from, `schema` the JSON Schema of one. An unanswered question ends after
        `timeout_s`: with `default`, else by `EffectFailed`.
        """

    @abstractmethod
    def now(self) -> Awaitable[float]:
        """Return the time, in seconds since 1970: the same in every attempt."""

    @abstractmethod
    def random(self) -> Awaitable[float]:
        """Return a random number from 0.0 up to but not 1.0: the same in every attempt."""

    @abstractmethod
    def checkpoint(self, name: str) -> Awaitable[None]:
        """Give this place in the run a name, to fork from or to go back to."""

    @abstractmethod
    def run_agent(
        self,
        agent: Union[str, Mapping[str, Json]],
        input: Json,
        *,
        on: Optional[str] = None,
        model: Optional[str] = None,
        timeout_s: Optional[float] = None,
    ) -> Awaitable[Dict[str, Json]]:
        """Run another agent as a run of its own, and return its result object (`status` and `output` among others).

        `agent` is the path of an agent file, from this agent's own folder, or what such a file says; `on` names a
        framework. Raises EffectFailed when it can't be started.
        """

    @abstractmethod
    def warn(self, message: str) -> None:
        """Tell the user that something asked for can't be done here (a setting the framework lacks)."""

    @abstractmethod
    def check(self) -> None:
        """Raise `Cancelled` if the run is to end. Call it between the steps of a blocking loop."""

    @abstractmethod
    def wait(self, awaitable: "Awaitable[Any]") -> Any:
        """Wait for an awaitable from a thread that is not the loop's."""

    @property
    @abstractmethod
    def cancelled(self) -> bool:
        """Whether the run was cancelled."""


class StepScope(ABC):
    """A named step under way."""

    @abstractmethod
    def __enter__(self) -> "StepScope": ...

    @abstractmethod
    def __exit__(self, *exc: Any) -> None: ...


class ToolCall(ABC):
    """A call of a tool of the agent's own that is to be made, or was in an earlier attempt."""

    recorded: bool
    """Whether it was made already, and must not be made again."""
    idempotency_key: Optional[str]
    """By which whatever the tool calls can know a repetition."""

    @abstractmethod
    def result(self) -> Json:
        """Return what a recorded call returned, or raise what it raised."""

    @abstractmethod
    def returned(self, value: Json) -> Awaitable[Json]:
        """Record what the call returned; gives the value as JSON has it."""

    @abstractmethod
    def raised(self, error: BaseException) -> Awaitable[None]:
        """Record what the call raised. One that the end of the run interrupts stays open: how it ended is unknown."""


@dataclass(frozen=True)
class BuildContext:
    """What `build` and `load` may use. A built agent is cached and serves many runs."""

    gateway: Gateway
    loop: asyncio.AbstractEventLoop
    warn: Callable[[str], None]
    """Tell the user of the run that caused the build about something that can't be done here."""

    async def call_tool(self, name: str, arguments: Mapping[str, Json]) -> Json:
        """Call a tool for the current run: the body of every native tool object."""
        return await current_run().call_tool(name, arguments)

    def call_tool_blocking(self, name: str, arguments: Mapping[str, Json]) -> Json:
        """Call a tool for the current run from a thread that is not the loop's."""
        run = current_run()
        return run.wait(run.call_tool(name, arguments))

    async def tool_effect(
        self, name: str, arguments: Mapping[str, Json], call: Callable[..., Any], *, idempotent: bool = False
    ) -> Json:
        """Call a tool of the agent's own for the current run: what a framework's hook for tools does."""
        return await current_run().tool_effect(name, arguments, call, idempotent=idempotent)

    def tool_effect_blocking(
        self, name: str, arguments: Mapping[str, Json], call: Callable[..., Any], *, idempotent: bool = False
    ) -> Json:
        """Call a tool of the agent's own for the current run from a thread that is not the loop's."""
        return current_run().tool_effect_blocking(name, arguments, call, idempotent=idempotent)


_current_run: "contextvars.ContextVar[RunContext]" = contextvars.ContextVar("agentforge_run")
_only_run: List[Optional[RunContext]] = [None]


def current_run() -> RunContext:
    """Return the run that the calling code belongs to.

    Found through a ContextVar; in a worker that runs one at a time also from threads the framework started by
    itself. Raises LookupError outside a run.
    """
    run = _current_run.get(None) or _only_run[0]
    if run is None:
        raise LookupError("no run is under way here")
    return run


class Adapter(ABC, Generic[AgentT]):
    """One framework's adapter. An author writes `build`, `describe` and `run`; the rest has defaults."""

    concurrent: ClassVar[bool] = True
    """Whether one process can serve many runs at once (each request carries its own run's token)."""

    native_concurrent: ClassVar[bool] = False
    """The same for native agents: their own clients know only the process's key, so most run one at a time."""

    distribution: ClassVar[str] = ""
    """The distribution whose version is the framework's release; used by the default `probe`."""

    natives: ClassVar[Natives] = Natives("an agent of the framework", lambda found: True)
    """Which objects `load` takes, in words and by a look at one: all others are the user's slip, told as such."""

    def probe(self) -> Probe:
        """Import the framework and say which release this is. Called once per worker, during `initialize`."""
        from importlib.metadata import version

        return Probe(version(self.distribution))

    @abstractmethod
    def build(self, spec: AgentSpec, ctx: BuildContext) -> AgentT:
        """Make the framework's own object from a portable agent. Called once per worker and agent version."""

    async def load(self, source: Source, ctx: BuildContext) -> AgentT:
        """Import a native agent: `module:attribute`; a function without arguments is called for it, and awaited.

        Raises EffectFailed for what is none of `natives`.
        """
        found = imported(source.module, source.attribute)
        if inspect.isfunction(found) and not inspect.signature(found).parameters:
            return await self.natives.made(found)  # type: ignore[no-any-return]
        return self.natives.checked(found, "%s:%s" % (source.module, source.attribute))  # type: ignore[no-any-return]

    @abstractmethod
    def describe(self, agent: AgentT) -> AgentCard:
        """Say what an agent is without running it."""

    @abstractmethod
    def run(self, agent: AgentT, request: Start, ctx: RunContext) -> "Union[Result, Awaitable[Result]]":
        """Run the agent to its end. A coroutine function is awaited on the loop, a plain one gets a thread."""

    def cancel(self, agent: AgentT, ctx: RunContext) -> None:
        """Stop a run sooner than at its next effect. The runtime cancels the task of an async `run` by itself."""

    def close(self, agent: AgentT) -> None:
        """Release what the agent holds. Called when the worker ends in order."""
