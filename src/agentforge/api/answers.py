"""JSON answers, written once and not validated again: OpenAPI's models describe them, tests hold both together."""

from typing import Any

from fastapi.responses import Response
from pydantic import BaseModel

from agentforge.api.encoding import encode
from agentforge.api.schemas import Problem

__all__ = ["JsonAnswer", "documented"]


class JsonAnswer(Response):
    """A JSON answer."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Encode the answer."""
        return encode(content)


def documented(model: type[BaseModel] | None, status: int = 200) -> dict[str, Any]:
    """Return a route's keyword arguments for OpenAPI: what it answers with, and how it refuses."""
    responses: dict[int | str, Any] = {"default": {"model": Problem, "description": "Refused"}}
    if model is not None:
        responses[status] = {"model": model}
    return {"responses": responses, "status_code": status, "response_class": JsonAnswer, "response_model": None}
