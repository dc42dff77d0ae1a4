"""Threads over HTTP: conversations that several runs continue."""

from typing import Annotated

from fastapi import APIRouter, Query

from agentforge.api.answers import JsonAnswer, documented
from agentforge.api.schemas import ThreadList, ThreadObject
from agentforge.engine import Engine

__all__ = ["thread_routes"]


def thread_routes(engine: Engine) -> APIRouter:
    """Return the routes below /threads. A thread's name may have slashes in it."""
    routes = APIRouter(prefix="/threads", tags=["threads"])

    @routes.get("", summary="List threads, the one used last first", **documented(ThreadList))
    async def list_threads() -> JsonAnswer:
        return JsonAnswer({"threads": await engine.threads.list(engine.lease.project)})

    @routes.get("/{name:path}", summary="A thread with its messages in the neutral form", **documented(ThreadObject))
    async def show(
        name: str, export: Annotated[bool, Query(description="The messages alone, and which runs said them")] = False
    ) -> JsonAnswer:
        read = engine.threads.export if export else engine.threads.show
        return JsonAnswer(await read(engine.lease.project, name))

    @routes.delete("/{name:path}", status_code=204, summary="Delete a thread; its runs stay")
    async def delete(name: str) -> None:
        await engine.threads.delete(engine.lease.project, name, engine.lease.epoch)

    return routes
