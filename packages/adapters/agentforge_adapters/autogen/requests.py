"""What all families have in common on the way to the model: one client for all runs, and a request's settings."""

from typing import Any, Dict

from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from openai.types.chat.completion_create_params import CompletionCreateParamsBase

from agentforge_worker.adapter import AgentSpec, current_run

__all__ = ["create_args", "openai_client"]


def openai_client(base_url: str) -> AsyncOpenAI:
    """Return a client whose requests carry the token of the run they belong to."""

    async def set_key(request: Any) -> None:
        request.headers["Authorization"] = "Bearer " + current_run().token

    http_client = DefaultAsyncHttpxClient(event_hooks={"request": [set_key]})
    return AsyncOpenAI(base_url=base_url, api_key="the run's", http_client=http_client)


def create_args(spec: AgentSpec) -> Dict[str, Any]:
    """Return a request's model and settings; those unknown to OpenAI's client go into the body as they are."""
    known = CompletionCreateParamsBase.__annotations__
    arguments = {name: value for name, value in spec.settings.items() if name in known}
    rest = {name: value for name, value in spec.settings.items() if name not in known}
    return {"model": spec.model, **arguments, **({"extra_body": rest} if rest else {})}
