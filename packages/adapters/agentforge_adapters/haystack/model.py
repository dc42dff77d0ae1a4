"""The model of portable agents: Haystack's own `OpenAIChatGenerator`, with the key of the run that asks."""

from typing import Any, Dict, Optional

from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.utils import Secret
from openai import AsyncOpenAI

from agentforge_worker.adapter import AgentSpec, BuildContext

from .output import response_format

__all__ = ["Models"]

_TIMEOUT_S = 30.0
"""Haystack's own patience with a model."""
_RETRIES = 2
"""OpenAI's own number of them; Haystack has its client try five times more, which takes half a minute."""


class Models:
    """Makes models that share one client."""

    def __init__(self) -> None:
        self._client: Optional[AsyncOpenAI] = None

    def make(self, spec: AgentSpec, ctx: BuildContext) -> OpenAIChatGenerator:
        """Return the model of an agent."""
        kwargs: Dict[str, Any] = dict(spec.settings)
        if spec.output is not None:
            kwargs["response_format"] = response_format(spec.output)
        model = OpenAIChatGenerator(
            model=spec.model,
            api_key=Secret.from_token("the run's"),
            api_base_url=ctx.gateway.base_url,
            generation_kwargs=kwargs,
            tools_strict=spec.output is not None,  # OpenAI's client takes no others beside a form of the answer
        )
        model.async_client = self._shared_client(ctx).with_options(
            timeout=spec.framework_settings.get("timeout_s", _TIMEOUT_S),
            max_retries=spec.framework_settings.get("max_retries", _RETRIES),
        )
        return model

    def _shared_client(self, ctx: BuildContext) -> AsyncOpenAI:
        """Return this process's client: it asks for the key at each request, and gets that of the request's run."""
        if self._client is None:

            async def token() -> str:
                return ctx.gateway.token

            self._client = AsyncOpenAI(base_url=ctx.gateway.base_url, api_key=token)
        return self._client
