"""A streamed chat completion as one object, and one object as a stream."""

from collections.abc import Iterator

from agentforge.gateway.canonical import encode
from agentforge.gateway.types import Json

__all__ = ["ChatAssembly", "acts", "events_of"]

DONE = b"data: [DONE]\n\n"
_ACTIONS = ("tool_calls", "function_call")
_REPLACED = frozenset({"role", "id", "type", "name"})
"""Delta fields that some servers repeat in every chunk: joining them would double them."""


class ChatAssembly:
    """Collects the chunks of a stream into the `chat.completion` that the same answer would be unstreamed."""

    def __init__(self) -> None:
        self._top: dict[str, Json] = {}
        self._choices: dict[int, dict[str, Json]] = {}
        self.chunks = 0

    def add(self, chunk: dict[str, Json]) -> None:
        """Take a chunk. Raises ValueError if it isn't one."""
        self.chunks += 1
        for name, value in chunk.items():
            if name != "choices" and (value is not None or name not in self._top):
                self._top[name] = value
        choices = chunk.get("choices") or []
        if not isinstance(choices, list):
            raise ValueError("`choices` is no list")
        for choice in choices:
            self._add_choice(choice)

    @property
    def finished(self) -> bool:
        """Whether every choice said why it ended."""
        return bool(self._choices) and all(choice.get("finish_reason") for choice in self._choices.values())

    def response(self) -> dict[str, Json]:
        """Return the whole answer."""
        top = dict(self._top)
        if top.get("usage", 0) is None:
            del top["usage"]
        top["object"] = "chat.completion"
        top["choices"] = [_closed(choice) for _, choice in sorted(self._choices.items())]
        return top

    def _add_choice(self, choice: Json) -> None:
        if not isinstance(choice, dict) or not isinstance(index := choice.get("index") or 0, int):
            raise ValueError("a choice is no object with an index")
        whole = self._choices.setdefault(index, {"index": index, "message": {}})
        for name, value in choice.items():
            if name == "delta":
                _merge(whole["message"], value)
            elif name == "logprobs" and isinstance(whole.get(name), dict):
                _merge(whole[name], value)
            elif value is not None or name not in whole:
                whole[name] = value


def events_of(response: dict[str, Json], *, include_usage: bool) -> Iterator[bytes]:
    """Return the events of a stream that carries this `chat.completion`: role, content, end, usage, `[DONE]`."""
    top = {k: v for k, v in response.items() if k not in ("choices", "usage")}
    top["object"] = "chat.completion.chunk"
    for choice in response.get("choices") or []:
        rest = {k: v for k, v in choice.items() if k not in ("message", "finish_reason")}
        delta = _opened(choice.get("message") or {})
        yield _data({**top, "choices": [{**rest, "delta": delta, "finish_reason": None}]})
        end = {"index": choice.get("index", 0), "delta": {}, "finish_reason": choice.get("finish_reason")}
        yield _data({**top, "choices": [end]})
    if include_usage:
        yield _data({**top, "choices": [], "usage": response.get("usage")})
    yield DONE


def _data(value: Json) -> bytes:
    return b"data: " + encode(value) + b"\n\n"


def _opened(message: dict[str, Json]) -> dict[str, Json]:
    """Return a message as a delta: its tool calls carry the index that a stream needs."""
    delta = dict(message)
    if delta.get("tool_calls"):
        delta["tool_calls"] = [{"index": i, **call} for i, call in enumerate(delta["tool_calls"])]
    return delta


def _closed(choice: dict[str, Json]) -> dict[str, Json]:
    """Return a collected choice as the unstreamed API shows it."""
    message = {"role": "assistant", "content": None, **choice["message"]}
    if isinstance(calls := message.get("tool_calls"), dict):
        message["tool_calls"] = [calls[index] for index in sorted(calls)]
    return {**choice, "message": message, "finish_reason": choice.get("finish_reason")}


def _merge(whole: dict[str, Json], delta: Json) -> None:
    """Add a delta: text is joined, objects are merged, tool calls go by their index."""
    if delta is None:
        return
    if not isinstance(delta, dict):
        raise ValueError("a delta is no object")
    for name, value in delta.items():
        if name == "tool_calls" and value is not None:
            _merge_calls(whole, value)
        else:
            whole[name] = _joined(name, whole.get(name), value)


def _joined(name: str, known: Json, value: Json) -> Json:
    if known is None:
        return dict(value) if isinstance(value, dict) else value
    if isinstance(value, str) and isinstance(known, str) and name not in _REPLACED:
        return known + value
    if isinstance(value, list) and isinstance(known, list):
        return known + value
    if isinstance(value, dict) and isinstance(known, dict):
        _merge(known, value)
        return known
    return known if value is None or value == "" else value


def _merge_calls(message: dict[str, Json], delta: Json) -> None:
    """Add tool call deltas to the calls by index that `tool_calls` holds until the answer is closed."""
    if not isinstance(delta, list):
        raise ValueError("`tool_calls` is no list")
    calls = message.get("tool_calls")
    if not isinstance(calls, dict):
        message["tool_calls"] = calls = {}
    for position, part in enumerate(delta):
        if not isinstance(part, dict):
            raise ValueError("a tool call is no object")
        index = part.get("index", position)
        known_id = calls.get(index, {}).get("id")
        if known_id and part.get("id") and part["id"] != known_id:
            index = len(calls)  # some servers number every call 0 and tell them apart by id alone
        _merge(calls.setdefault(index, {}), {k: v for k, v in part.items() if k != "index"})


def acts(choice: dict[str, Json]) -> bool:
    """Whether a streamed choice lets its reader act: a tool call, or the end of the answer."""
    delta = choice.get("delta")
    called = isinstance(delta, dict) and any(delta.get(name) for name in _ACTIONS)
    return called or choice.get("finish_reason") is not None
