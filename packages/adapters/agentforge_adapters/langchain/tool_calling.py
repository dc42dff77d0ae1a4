"""LangChain 0.1 to 0.3: the chat model of langchain-openai."""

from typing import Any, Tuple

import openai
from langchain.agents.agent import RunnableMultiActionAgent
from langchain_openai import ChatOpenAI

from agentforge_worker.adapter import AgentSpec, BuildContext

from .executor import ExecutorAdapter

__all__ = ["ToolCallingAdapter"]

_KEY = "of-the-run"
"""Stands where the client wants a key when it is made; each request gets its own."""


class ToolCallingAdapter(ExecutorAdapter):
    """Runs agents of LangChain 0.1, 0.2 and 0.3."""

    def models(self, spec: AgentSpec, ctx: BuildContext) -> Tuple[ChatOpenAI, ChatOpenAI]:
        """Return the one chat model: the executor says whether it streams."""

        async def with_token(request: Any) -> None:
            request.headers["Authorization"] = "Bearer " + ctx.gateway.token  # of the run that sends the request

        fields = getattr(ChatOpenAI, "model_fields", None) or ChatOpenAI.__fields__  # pydantic 2 or 1
        known = {name: value for name, value in spec.settings.items() if name in fields}
        model = ChatOpenAI(
            model=spec.model,
            base_url=ctx.gateway.base_url,
            api_key=_KEY,
            http_async_client=openai.DefaultAsyncHttpxClient(event_hooks={"request": [with_token]}),
            model_kwargs={name: value for name, value in spec.settings.items() if name not in known},
            **known,
        )
        return model, model

    def planner(self, runnable: Any, streams: bool) -> RunnableMultiActionAgent:
        """Return a planner that streams its runnable, or does not."""
        return RunnableMultiActionAgent(runnable=runnable, stream_runnable=streams)
