"""The client of a portable agent: CrewAI's own, used from the worker's loop, with the key of the run that asks."""

from typing import Any

import httpx
from crewai.llms.hooks.base import BaseInterceptor
from crewai.llms.providers.openai.completion import OpenAICompletion

from agentforge_worker.adapter import current_run

__all__ = ["LoopLLM", "RunKey"]


class LoopLLM(OpenAICompletion):
    """CrewAI asks the model in a thread that blocks; this one has the same request made on the loop.

    There it can be cancelled, which closes its connection and lets the thread go.
    """

    def call(self, *args: Any, **options: Any) -> Any:
        """Make the call of a thread on the loop."""
        return current_run().wait(self.acall(*args, **options))


class RunKey(BaseInterceptor[httpx.Request, httpx.Response]):
    """Sends a request with the token of the run it belongs to; one that was cancelled makes no more requests."""

    def on_outbound(self, message: httpx.Request) -> httpx.Request:
        """Set the key."""
        run = current_run()
        run.check()
        message.headers["Authorization"] = "Bearer " + run.token
        return message

    def on_inbound(self, message: httpx.Response) -> httpx.Response:
        """Leave the answer as it is."""
        return message

    async def aon_outbound(self, message: httpx.Request) -> httpx.Request:
        """Set the key."""
        return self.on_outbound(message)

    async def aon_inbound(self, message: httpx.Response) -> httpx.Response:
        """Leave the answer as it is."""
        return message
