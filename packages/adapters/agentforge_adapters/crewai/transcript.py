"""What a run of an older CrewAI says and does, which there is text: read into messages, and told as steps.

CrewAI tells of each step in the run's own thread, so a `ContextVar` holds the run's transcript.
"""

import contextlib
import json
from contextvars import ContextVar
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from agentforge_worker.adapter import Message, RunContext, Start, StepLimitReached

__all__ = ["CONTINUE", "Transcript", "in_text", "transcript"]

CONTINUE = "Go on."
"""The task of a conversation to be continued in which no user has said anything: CrewAI needs one."""


class Transcript:
    """The conversation before a run, around the message that is CrewAI's task, and what the run adds to it."""

    def __init__(self, request: Start, ctx: RunContext) -> None:
        messages = list(request.messages)
        at = len(messages)
        if request.continues:
            at = max((n for n, message in enumerate(messages) if message.role == "user"), default=at)
        self.task = messages[at].content if at < len(messages) else CONTINUE if request.continues else request.text
        self.earlier = in_text(messages[:at])
        self.later = in_text(messages[at + 1 :])
        self.stream = request.stream
        self.added: List[Message] = []
        self.max_steps: Optional[int] = None
        """After so many answers CrewAI asks once more, for the best answer there is; then the run ends."""
        self._ctx = ctx
        self.prompt: Optional[str] = None
        """The first prompt, where CrewAI writes what was said and done behind its prompt."""
        self.broken: Optional[Exception] = None
        """Why an answer ended before its end, which CrewAI would take for a whole one."""
        self._asked = 0
        self._calls = sum(len(message.tool_calls) for message in messages)
        self._called: Optional[Tuple[Mapping[str, Any], Any]] = None

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """Ask the model as a step of the run. CrewAI itself goes on for ever with one that never answers."""
        if self.max_steps is not None and self._asked > self.max_steps:
            raise StepLimitReached(self.max_steps)
        self._asked += 1
        with self._ctx.step("model", kind="model"):
            yield
            if self.broken is not None:
                raise self.broken

    def call_tool(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Call a tool of the agent's as a step of the run."""
        with self._ctx.step(name, kind="tool"):
            value = self._ctx.wait(self._ctx.call_tool(name, arguments))
        self._called = (arguments, value)
        return value

    def acted(self, name: str, text: str, told: str) -> None:
        """Note a call: what the model wrote as its input, and what it was told."""
        arguments, value = self._called or (_parsed(text), told)
        self._called = None
        self._calls += 1
        call = {"id": "call_%d" % self._calls, "name": name, "arguments": arguments}
        self._add(Message("assistant", "", [call]))
        content = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        self.added.append(Message("tool", content, tool_call_id=call["id"]))

    def answered(self, text: str) -> None:
        """Note the answer."""
        self._add(Message("assistant", text))

    def ending_with(self, value: Any) -> List[Message]:
        """Return what was added, ending with a structured answer in the place of the text that it was made from."""
        return [*self.added[:-1], Message("assistant", json.dumps(value, ensure_ascii=False))]

    def _add(self, message: Message) -> None:
        self.added.append(message)
        self._ctx.emit("message.added", vars(message))


transcript: "ContextVar[Transcript]" = ContextVar("agentforge_crewai_transcript")
"""That of the current run."""


def in_text(messages: Sequence[Message]) -> List[Dict[str, str]]:
    """Return a conversation as chat messages without tool calls: these, and what came of them, are lines of text."""
    told = {message.tool_call_id: message.content for message in messages if message.role == "tool"}
    plain = []
    for message in messages:
        if message.role == "assistant":
            plain.append({"role": "assistant", "content": _said(message, told)})
        elif message.role != "tool":
            plain.append({"role": message.role, "content": message.content})
    return plain


def _said(message: Message, told: Mapping[Optional[str], str]) -> str:
    if not message.tool_calls:
        return "Thought: I now know the final answer\nFinal Answer: " + message.content
    return "\n".join(
        "Thought: %s\nAction: %s\nAction Input: %s\nObservation: %s"
        % (
            message.content or "I have to use a tool",
            call["name"],
            json.dumps(call["arguments"], ensure_ascii=False),
            told.get(call["id"], ""),
        )
        for call in message.tool_calls
    )


def _parsed(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError):  # the model's own mistake: it is told so by CrewAI
        return {"input": str(text)}
