"""Refusals of the embedded model in the form of OpenAI's API."""

from typing import Any

__all__ = ["RequestRefused", "too_long"]


class RequestRefused(Exception):
    """A request that gets an error for an answer. Raised anywhere below the server, which answers it."""

    def __init__(self, status: int, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param

    def body(self) -> dict[str, Any]:
        """Return the JSON body: `{"error": {"message", "type", "param", "code"}}`."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def too_long(tokens: int, room: int) -> RequestRefused:
    """Return the refusal of a request that does not fit into the context, with OpenAI's code for it."""
    message = (
        f"the request has {tokens} tokens after all older turns were left out; the embedded model has room for {room}. "
        "Shorten it, or connect a real model."
    )
    return RequestRefused(400, message, code="context_length_exceeded", param="messages")
