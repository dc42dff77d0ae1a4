"""What the gateway and the engine say to each other: grants in, calls, answers and failures out.

The engine makes an `Upstream` per model alias and a `Grant` per attempt, implements `CallObserver`, and gets a
`ModelCall` for every request that a framework sends, followed by exactly one `completed` or `failed`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import msgspec

from agentforge.gateway.canonical import Json, decode, encode

__all__ = [
    "CallObserver",
    "EmbeddedModel",
    "FailureKind",
    "Grant",
    "Json",
    "ModelCall",
    "ModelFailure",
    "ModelResponse",
    "Refused",
    "Secret",
    "Timeouts",
    "Upstream",
    "UpstreamKind",
    "Usage",
]

UpstreamKind = Literal["openai", "embedded"]

FailureKind = Literal[
    "auth_refused",
    "rate_limited",
    "bad_request",
    "upstream_error",
    "unreachable",
    "silent",
    "broken_stream",
    "unknown_model",
    "refused",
    "malformed",
    "aborted",
    "internal",
]

REDACTED = "[redacted]"
SHORTEST_REDACTED = 8
"""Shorter keys (`x`, `none`, `EMPTY`) are placeholders of local servers; redacting them would garble answers."""


class Secret:
    """A key that shows itself only through `reveal`: its text forms hide it and it can't be pickled."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the key itself: for the one line that puts it into a header."""
        return self._value

    def redact(self, text: str) -> str:
        """Return `text` with the key replaced, wherever it stands in it."""
        return text.replace(self._value, REDACTED) if len(self._value) >= SHORTEST_REDACTED else text

    def redact_bytes(self, data: bytes) -> bytes:
        """Return `data` with the key replaced, wherever it stands in it."""
        if len(self._value) < SHORTEST_REDACTED:
            return data
        return data.replace(self._value.encode(), REDACTED.encode())

    def redact_json(self, data: bytes) -> bytes:
        """Return `data` with the key replaced, also where JSON writes it with escapes; then it is JSON anew."""
        data = self.redact_bytes(data)
        if len(self._value) < SHORTEST_REDACTED or not (b"\\u" in data or b"\\/" in data):
            return data
        try:
            value = decode(data)
        except ValueError:
            return data
        clean = self._redact_value(value)
        return data if clean == value else encode(clean)

    def _redact_value(self, value: Json) -> Json:
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, dict):
            return {self.redact(name): self._redact_value(each) for name, each in value.items()}
        return [self._redact_value(each) for each in value] if isinstance(value, list) else value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(("Secret", self._value))

    def __repr__(self) -> str:
        return "Secret('***')"

    __str__ = __repr__

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not pickled")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long an upstream may take, in seconds. There is no limit on a whole answer: the run has its own."""

    connect_s: float = 10.0
    idle_s: float = 600.0
    """Silence: no byte arrived for this long (a plain answer comes in one piece, so its whole wait counts)."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """A real model behind an alias.

    `base_url` is what the provider documents (`https://host/v1`), or `unix:///path/to/name.sock` (with or without
    `/v1`). For kind `embedded` it stays empty: the gateway asks its `EmbeddedModel` for each call.
    """

    alias: str
    kind: UpstreamKind
    base_url: str
    model: str
    """The model's name as it goes over the wire."""
    api_key: Secret | None = None
    timeouts: Timeouts = Timeouts()


@dataclass(frozen=True, slots=True)
class Grant:
    """What one run token allows: these models, for this attempt, on the door of this worker only."""

    run_id: str
    attempt: int
    worker: str
    upstreams: Mapping[str, Upstream]
    """By alias. A request's `model` is looked up as an alias first, then as a wire model name."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the upstream counted them."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One request of a framework to a model."""

    call_id: str
    run_id: str
    attempt: int
    worker: str
    alias: str
    """The alias it was routed to; empty if the request named no model of the grant."""
    model: str
    """The model's name as it goes to the upstream."""
    path: str
    """`/v1/chat/completions` or `/v1/embeddings`."""
    body: bytes
    """As the framework sent it."""
    data: dict[str, Json]
    """`body` parsed; empty if it was malformed."""
    stream: bool
    retry: int
    """How often the framework's client had tried before (`x-stainless-retry-count`); 0 if it doesn't say."""
    started: float
    """On the gateway's monotonic clock, seconds."""
    request_hash: str
    """`request_hash(path, data)`."""


class _Record(msgspec.Struct, omit_defaults=True):
    """How a response is kept in the journal."""

    body: str  # not as JSON in JSON: what real servers send and we take may be more than msgspec reads
    headers: dict[str, str] = {}
    stream: str | None = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class ModelResponse:
    """A complete, successful answer (status 200).

    Also what `CallObserver.requested` returns to answer a call without its upstream; then only `body` is needed.
    """

    body: bytes
    """The answer as one JSON object: the upstream's own bytes, or assembled from a stream."""
    stream: bytes | None = None
    """The raw server-sent events, if the answer came as a stream."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """The upstream's headers that go to the framework's client (request id, rate limits, ...), names in lower case."""
    usage: Usage | None = None
    """None if the upstream sent none: a stream has it only where the client asked (`include_usage`)."""
    duration_ms: float = 0.0
    """From the request's arrival to the end of the upstream's answer."""

    @property
    def data(self) -> dict[str, Json]:
        """`body` parsed."""
        parsed: dict[str, Json] = decode(self.body)
        return parsed

    def to_record(self) -> bytes:
        """Return what the journal keeps: JSON with `body`, `headers`, `stream` and `usage`."""
        stream = None if self.stream is None else self.stream.decode(errors="replace")
        record = _Record(self.body.decode(), dict(self.headers), stream, self.usage)
        return msgspec.json.encode(record)

    @classmethod
    def from_record(cls, record: bytes) -> "ModelResponse":
        """Read what `to_record` wrote; `duration_ms` is 0."""
        kept = msgspec.json.decode(record, type=_Record)
        stream = None if kept.stream is None else kept.stream.encode()
        return cls(kept.body.encode(), stream, kept.headers, kept.usage)


@dataclass(frozen=True, slots=True)
class ModelFailure:
    """Why a call got no complete answer. `failure_error` turns it into the error of a run's result."""

    kind: FailureKind
    code: str
    """AF5xx; for kind `refused` the code that the observer gave."""
    status: int
    """The HTTP status that the framework's client saw. 0: it saw a broken connection."""
    message: str
    """The facts, without any key."""
    upstream_status: int | None = None
    retry_after_s: float | None = None
    details: Mapping[str, Json] = field(default_factory=dict)
    """`body`: the upstream's error body as text, cut to 2,000 characters."""


class Refused(Exception):
    """Raised by `CallObserver.requested`: don't ask the upstream; the framework's client gets this instead."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


class CallObserver(Protocol):
    """Who is told about every call; the engine. All methods run on the gateway's event loop.

    Order for one call: `requested`, then `delta` any number of times, then exactly one of `completed` and `failed`.
    `failed` may come without `requested` (malformed request, unknown model). A call that `requested` answered by
    itself has nothing after it; one that it refused is reported through `failed`.
    """

    async def requested(self, call: ModelCall) -> ModelResponse | None:
        """Awaited before anything goes upstream.

        Return None to ask the upstream, a response to answer with it instead (as a stream if the request streams),
        or raise `Refused`. It is cancelled if the framework's client leaves meanwhile.
        """
        ...

    def delta(self, call: ModelCall, text: str) -> None:
        """Take a piece of the answer's text as it arrives (streams only). Must not block; nothing is committed yet."""
        ...

    async def completed(self, call: ModelCall, response: ModelResponse) -> None:
        """Commit the answer: awaited before the framework can act on it. Never cancelled by the gateway.

        If it raises, the framework's client gets an error in place of the answer.
        """
        ...

    async def failed(self, call: ModelCall, failure: ModelFailure) -> None:
        """Take note of a call that got no complete answer. Awaited before the error goes to the framework."""
        ...


class EmbeddedModel(Protocol):
    """The model that runs on this machine; loaded by the first `acquire`, free to be unloaded when all released."""

    async def acquire(self) -> str:
        """Return the base URL of the running model (`unix:///...sock` or `http://127.0.0.1:...`), loading it first."""
        ...

    def release(self) -> None:
        """Say that a call which acquired it is over."""
        ...
