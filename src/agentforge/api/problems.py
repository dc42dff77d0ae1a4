"""Errors as HTTP answers: RFC 9457 problem details with our codes."""

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from agentforge.api.answers import JsonAnswer
from agentforge.errors import AgentForgeError, InternalError
from agentforge.errors.host import RequestInvalid

__all__ = ["defect", "install", "problem", "refusal"]

_log = logging.getLogger(__name__)


def problem(error: AgentForgeError) -> dict[str, object]:
    """Return an error as a problem document; `exit_code` is what a command should end with."""
    info = error.info()
    return {
        "type": f"urn:agentforge:error:{info.code}",
        "title": type(error).__name__,
        "status": error.http_status,
        "detail": info.message,
        "exit_code": error.exit_code,
        **info.to_dict(),
    }


def install(app: FastAPI) -> None:
    """Have the app answer every failure with a problem document."""

    @app.exception_handler(AgentForgeError)
    async def known(request: Request, error: AgentForgeError) -> JsonAnswer:
        return refusal(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JsonAnswer:
        places = [{"at": list(each["loc"]), "problem": each["msg"]} for each in error.errors()]
        first = places[0]
        text = f"the request is wrong at `{'.'.join(map(str, first['at']))}`: {first['problem']}"
        return refusal(RequestInvalid(text, problems=places))

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> JsonAnswer:
        failure = RequestInvalid(f"{request.method} {request.url.path}: {error.detail}")
        return JsonAnswer(
            {**problem(failure), "status": error.status_code}, error.status_code, media_type="application/problem+json"
        )

    @app.exception_handler(Exception)
    async def unknown(request: Request, error: Exception) -> JsonAnswer:
        return defect(f"{request.method} {request.url.path}", error)


def refusal(error: AgentForgeError) -> JsonAnswer:
    """Return an error as an answer."""
    return JsonAnswer(problem(error), error.http_status, media_type="application/problem+json")


def defect(request: str, error: Exception) -> JsonAnswer:
    """Log an error that nobody foresaw, and return it as an answer."""
    _log.error("%s failed by a defect", request, exc_info=error)
    return refusal(InternalError(f"`{type(error).__name__}`: {error}"))
