"""Write answers in OpenAI's format, whole or as chunks of a stream. Pure but for ids, which are given."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from agentforge.gateway.embedded.translation import Plan

__all__ = ["Call", "Reply", "Usage", "read_call"]

Json = Any


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of the prompt that the engine read, which is not the request's own text, and of what it wrote."""

    prompt: int
    completion: int

    def body(self) -> dict[str, int]:
        """Return OpenAI's `usage`."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
        }


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call that the model made."""

    id: str
    name: str
    arguments: str

    def body(self) -> dict[str, Json]:
        """Return OpenAI's entry of `tool_calls`."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


@dataclass(frozen=True, slots=True)
class Reply:
    """What all parts of one answer share."""

    id: str
    created: int
    model: str

    def whole(self, message: dict[str, Json], finish_reason: str, usage: Usage) -> dict[str, Json]:
        """Return the body of an answer that is not streamed."""
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": None, "refusal": None, **message},
            "finish_reason": finish_reason,
            "logprobs": None,
        }
        return {**self._head("chat.completion"), "choices": [choice], "usage": usage.body()}

    def chunk(self, delta: dict[str, Json], finish_reason: str | None = None) -> dict[str, Json]:
        """Return one chunk of a stream."""
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def call_chunks(self, call: Call) -> Iterator[dict[str, Json]]:
        """Return the chunks of a tool call: its name first, then its arguments, as OpenAI's endpoint sends them."""
        opened = {"index": 0, **Call(call.id, call.name, "").body()}
        yield self.chunk({"role": "assistant", "content": None, "tool_calls": [opened]})
        yield self.chunk({"tool_calls": [{"index": 0, "function": {"arguments": call.arguments}}]})

    def usage_chunk(self, usage: Usage) -> dict[str, Json]:
        """Return the last chunk of a stream whose client asked for the usage."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": usage.body()}

    def _head(self, kind: str) -> dict[str, Json]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def read_call(plan: Plan, text: str, call_id: str) -> Call | None:
    """Return the call that the engine wrote; None if it was cut before the tool's name was there.

    Arguments that were cut by a token limit stay as they are, as OpenAI's endpoint leaves them.
    """
    try:
        written = json.loads(text)
    except ValueError:
        return Call(call_id, plan.tool, text) if plan.kind == "call" else None
    if plan.kind == "call":
        return Call(call_id, plan.tool, json.dumps(written, ensure_ascii=False))
    return Call(call_id, written["name"], json.dumps(written["arguments"], ensure_ascii=False))
