"""The model client of AutoGen 0.2's agents: its requests are made on the worker's loop, where they can be cancelled."""

from typing import Any, Dict, List

from autogen.oai.client import OpenAIClient
from openai import AsyncOpenAI, AsyncStream
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from agentforge_worker.adapter import current_run

from .conversable_messages import from_native
from .failing import raise_failure

__all__ = ["RunModelClient"]

Json = Any


class RunModelClient(OpenAIClient):  # type: ignore[misc]
    """AutoGen's own client for OpenAI, over one that all agents share."""

    def __init__(self, config: Dict[str, Json], client: AsyncOpenAI) -> None:
        super().__init__(client)
        self._shared = client

    def create(self, params: Dict[str, Json]) -> ChatCompletion:
        """Ask the model, unless a tool has failed: AutoGen would tell it of that."""
        raise_failure()
        run = current_run()
        request = {"stream": False, **params}
        del request["model_client_cls"]
        with run.step("model", kind="model"):
            response: ChatCompletion = run.wait(self._ask(request))
        for message in from_native([response.choices[0].message.model_dump()]):
            run.emit("message.added", vars(message))
        return response

    async def _ask(self, request: Dict[str, Json]) -> ChatCompletion:
        answer: Any = await self._shared.chat.completions.create(**request)
        if not request["stream"]:
            return answer  # type: ignore[no-any-return]
        async with answer:
            return await _read(answer)


async def _read(chunks: "AsyncStream[ChatCompletionChunk]") -> ChatCompletion:
    """Put an answer together. AutoGen's own way counts tokens with files that it loads from the network."""
    content: List[str] = []
    calls: Dict[int, Dict[str, Json]] = {}
    last: Any = None
    reason = "stop"
    async for last in chunks:
        for choice in last.choices[:1]:
            content.append(choice.delta.content or "")
            reason = choice.finish_reason or reason
            for part in choice.delta.tool_calls or ():
                call = calls.setdefault(part.index, _no_call(part.index))
                call["id"] += part.id or ""
                if part.function is not None:
                    call["function"]["name"] += part.function.name or ""
                    call["function"]["arguments"] += part.function.arguments or ""
    tool_calls = [call for _, call in sorted(calls.items())]
    message = {"role": "assistant", "content": "".join(content), "tool_calls": tool_calls or None}
    choices = [{"index": 0, "finish_reason": reason, "message": message, "logprobs": None}]
    head = {"id": last.id, "model": last.model, "created": last.created, "object": "chat.completion"}
    return ChatCompletion.model_validate({**head, "choices": choices})


def _no_call(index: int) -> Dict[str, Json]:
    # AutoGen leaves the index in, and sends it back.
    return {"index": index, "id": "", "type": "function", "function": {"name": "", "arguments": ""}}
