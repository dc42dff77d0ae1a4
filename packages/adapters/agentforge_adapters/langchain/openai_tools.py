"""LangChain 0.0: the chat model of langchain-community."""

import json
from typing import Any, Tuple

import httpx
import openai
from langchain_community.chat_models import ChatOpenAI
from langchain_core.messages import AIMessage, BaseMessage

from agentforge_worker.adapter import AgentSpec, BuildContext, Message

from .executor import ExecutorAdapter

__all__ = ["OpenAIToolsAdapter"]

_KEY = "of-the-run"
"""Stands where the client wants a key when it is made; each request gets its own."""


class OpenAIToolsAdapter(ExecutorAdapter):
    """Runs agents of LangChain 0.0.354, the last release before 0.1."""

    def models(self, spec: AgentSpec, ctx: BuildContext) -> Tuple[ChatOpenAI, ChatOpenAI]:
        """Return a chat model that does not stream and one that does, with one client."""

        async def with_token(request: Any) -> None:
            request.headers["Authorization"] = "Bearer " + ctx.gateway.token  # of the run that sends the request

        address = {"base_url": ctx.gateway.base_url, "api_key": _KEY}
        # What the client makes by itself, and a hook.
        http = httpx.AsyncClient(
            base_url=ctx.gateway.base_url,
            timeout=openai.Timeout(600.0, connect=5.0),
            limits=httpx.Limits(max_connections=1000, max_keepalive_connections=100),
            follow_redirects=True,
            event_hooks={"request": [with_token]},
        )
        # The model would give `http_client` to a client of each kind.
        clients = {
            "client": openai.OpenAI(**address).chat.completions,
            "async_client": openai.AsyncOpenAI(http_client=http, **address).chat.completions,
        }
        known = {name: value for name, value in spec.settings.items() if name in ChatOpenAI.__fields__}
        other = {name: value for name, value in spec.settings.items() if name not in known}
        plain, streaming = (
            ChatOpenAI(
                model=spec.model, openai_api_key=_KEY, streaming=streams, model_kwargs=dict(other), **clients, **known
            )
            for streams in (False, True)
        )
        return plain, streaming

    def to_langchain(self, message: Message) -> BaseMessage:
        """Return a message; it has calls of tools as OpenAI has them."""
        if not message.tool_calls:
            return super().to_langchain(message)
        calls = [
            {
                "id": call["id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": json.dumps(call["arguments"], ensure_ascii=False)},
            }
            for call in message.tool_calls
        ]
        return AIMessage(content=message.content, additional_kwargs={"tool_calls": calls})
