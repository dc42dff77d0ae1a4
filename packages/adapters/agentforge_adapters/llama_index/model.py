"""The model of portable agents: LlamaIndex's own `OpenAILike`, with the key of the run that asks."""

from typing import Any, AsyncIterator, Dict, List, Optional, Sequence

import httpx
from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.tools import BaseTool
from llama_index.llms.openai_like import OpenAILike
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from agentforge_worker.adapter import AgentSpec, BuildContext, current_run

__all__ = ["HostModel", "Models", "OldModels"]

_NAMED = {"temperature", "max_tokens"}
"""The settings that LlamaIndex has a name for; all others go into the request's body as they are."""
_CONTEXT_WINDOW = 128_000
"""Tokens of a conversation that LlamaIndex keeps three quarters of. Its own default of 3,900 cuts longer threads."""
_RETRIES = 2
"""OpenAI's own number of them. LlamaIndex has its client try three times more, and itself three times each of that."""
_TIMEOUT_S = 60.0
"""LlamaIndex's own patience with a model."""


class HostModel(OpenAILike):
    """Asks for tools only where there are any: LlamaIndex sends `null` in their place."""

    async def achat_with_tools(
        self, tools: Sequence[BaseTool], *, chat_history: Optional[List[ChatMessage]] = None, **options: Any
    ) -> ChatResponse:
        """Ask the model."""
        if not tools:
            return await self.achat(chat_history or [])
        return await super().achat_with_tools(tools, chat_history=chat_history, **options)

    async def astream_chat_with_tools(
        self, tools: Sequence[BaseTool], *, chat_history: Optional[List[ChatMessage]] = None, **options: Any
    ) -> AsyncIterator[ChatResponse]:
        """Ask the model for a stream."""
        if not tools:
            return await self.astream_chat(chat_history or [])
        return await super().astream_chat_with_tools(tools, chat_history=chat_history, **options)


class Models:
    """Makes models that share one client."""

    def __init__(self) -> None:
        self._client: Optional[AsyncOpenAI] = None

    def make(self, spec: AgentSpec, ctx: BuildContext) -> HostModel:
        """Return the model of an agent."""
        named: Dict[str, Any] = {name: value for name, value in spec.settings.items() if name in _NAMED}
        other = {name: value for name, value in spec.settings.items() if name not in _NAMED}
        model = HostModel(
            model=spec.model,
            api_base=ctx.gateway.base_url,
            api_key="the run's",
            is_chat_model=True,
            is_function_calling_model=True,
            context_window=spec.framework_settings.get("context_window", _CONTEXT_WINDOW),
            additional_kwargs=other,
            **self.client(spec, ctx.gateway.base_url),
            **named,
        )
        if model.temperature != named.get("temperature", model.temperature):
            text = "`temperature` is not sent as it is: LlamaIndex sets its own for the reasoning model `%s`"
            ctx.warn(text % spec.model)
        return model

    def client(self, spec: AgentSpec, base_url: str) -> Dict[str, Any]:
        """Return what a model is told of its client."""
        client = self._shared_client(base_url).with_options(
            timeout=spec.framework_settings.get("timeout_s", _TIMEOUT_S),
            max_retries=spec.framework_settings.get("max_retries", _RETRIES),
        )
        return {"async_openai_client": client, "max_retries": 0}  # the client tries again, and the model does not

    def _shared_client(self, base_url: str) -> AsyncOpenAI:
        if self._client is None:
            self._client = AsyncOpenAI(
                base_url=base_url,
                api_key="the run's",
                http_client=DefaultAsyncHttpxClient(auth=RunKey()),
            )
        return self._client


class OldModels(Models):
    """The same for LlamaIndex 0.10, whose models make clients of their own; these share their connections."""

    def __init__(self) -> None:
        super().__init__()
        self._connections: Optional[httpx.AsyncClient] = None

    def client(self, spec: AgentSpec, base_url: str) -> Dict[str, Any]:
        """Return what a model is told of its client."""
        if self._connections is None:
            self._connections = DefaultAsyncHttpxClient(auth=RunKey())
        return {
            "async_http_client": self._connections,
            "timeout": spec.framework_settings.get("timeout_s", _TIMEOUT_S),
            # Of two, the client would make two, and the model the whole once more.
            "max_retries": spec.framework_settings.get("max_retries", 1),
        }


class RunKey(httpx.Auth):
    """Signs each request with the token of the run that makes it."""

    def auth_flow(self, request: httpx.Request) -> Any:
        """Set the key."""
        request.headers["Authorization"] = "Bearer " + current_run().token
        yield request
