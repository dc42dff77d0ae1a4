"""The HTTP API: resources over the engine. OpenAPI is at `/openapi.json`."""

import asyncio
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, FastAPI

from agentforge import __version__
from agentforge.api.answers import JsonAnswer, documented
from agentforge.api.compat_routes import compat_routes
from agentforge.api.environment_routes import environment_routes
from agentforge.api.framework_routes import framework_routes
from agentforge.api.health_routes import health_routes, host_health_routes
from agentforge.api.history_routes import history_routes
from agentforge.api.keeping_routes import keeping_routes
from agentforge.api.lifecycle_routes import lifecycle_routes
from agentforge.api.problems import install
from agentforge.api.run_routes import run_routes
from agentforge.api.schemas import HostObject, Stopping
from agentforge.api.thread_routes import thread_routes
from agentforge.engine import Engine
from agentforge.lifecycle import Health

__all__ = ["make_app"]


def make_app(
    engine: Engine,
    describe: Callable[[], dict[str, Any]],
    stop: Callable[[], None],
    stopping: Callable[[], bool] = lambda: False,
    *,
    health: Health,
) -> FastAPI:
    """Return the API of a host; `describe` says what it is doing, `stop` has it leave, `stopping` whether it does."""
    app = FastAPI(
        title="AgentForge",
        version=__version__,
        description="The API of one host.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    install(app)
    app.include_router(_host_routes(describe, stop), prefix="/v1")
    app.include_router(run_routes(engine, stopping), prefix="/v1")
    app.include_router(history_routes(engine), prefix="/v1")
    app.include_router(thread_routes(engine), prefix="/v1")
    app.include_router(lifecycle_routes(engine), prefix="/v1")
    app.include_router(environment_routes(engine, health), prefix="/v1")
    app.include_router(keeping_routes(engine), prefix="/v1")
    app.include_router(framework_routes(engine), prefix="/v1")
    app.include_router(compat_routes(engine), prefix="/v1")
    app.include_router(health_routes(health), prefix="/v1")
    app.include_router(host_health_routes(engine, health))
    return app


def _host_routes(describe: Callable[[], dict[str, Any]], stop: Callable[[], None]) -> APIRouter:
    routes = APIRouter(tags=["host"])

    @routes.get("/host", summary="What this host is and does", **documented(HostObject))
    async def host() -> JsonAnswer:
        return JsonAnswer(describe())

    @routes.post("/host/stop", summary="Stop this host", **documented(Stopping, 202))
    async def stop_host() -> JsonAnswer:
        asyncio.get_running_loop().call_later(0.05, stop)
        return JsonAnswer({"stopping": True}, 202)

    return routes
