"""The key of each model request: the token of the run that makes it."""

import httpx
from crewai.llms.hooks.base import BaseInterceptor

from agentforge_worker.adapter import current_run

__all__ = ["RunKey"]


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
