"""The catalogue over HTTP."""

import asyncio
from typing import Any

from fastapi import APIRouter

from agentforge.api.answers import JsonAnswer, documented
from agentforge.api.schemas import FrameworkList, FrameworkObject
from agentforge.engine import Engine
from agentforge.frameworks import Manifest

__all__ = ["framework_routes"]


def framework_routes(engine: Engine) -> APIRouter:
    """Return the routes below /frameworks."""
    routes = APIRouter(prefix="/frameworks", tags=["frameworks"])

    @routes.get("", summary="List frameworks", **documented(FrameworkList))
    async def list_frameworks() -> JsonAnswer:
        built = await asyncio.to_thread(_built, engine)
        names = engine.catalogue.names()
        found = [_summary(engine, engine.catalogue.get(name), built) for name in names]
        return JsonAnswer({"frameworks": found})

    @routes.get("/{name}", summary="One framework with releases and capabilities", **documented(FrameworkObject))
    async def show(name: str) -> JsonAnswer:
        manifest = engine.catalogue.get(name)
        built = await asyncio.to_thread(_built, engine)
        found = {
            **_summary(engine, manifest, built),
            "homepage": manifest.homepage,
            "docs": manifest.docs,
            "distribution": manifest.distribution,
            "capabilities": {key: value.model_dump() for key, value in manifest.capabilities.items()},
            "covers": [{"versions": r.versions, "python": r.python} for r in manifest.releases],
            "model_settings": list(manifest.model_settings),
            "settings": dict(manifest.settings),
            "adapter_digest": manifest.digest,
            "folder": str(manifest.folder),
        }
        return JsonAnswer(found)

    return routes


def _built(engine: Engine) -> dict[str, list[str]]:
    built: dict[str, list[str]] = {}
    for environment in engine.environments.list():
        if environment.framework is not None and environment.release is not None:
            built.setdefault(environment.framework, []).append(environment.release)
    return built


def _summary(engine: Engine, manifest: Manifest, built: dict[str, list[str]]) -> dict[str, Any]:
    return {
        "name": manifest.name,
        "title": manifest.title,
        "summary": manifest.summary,
        "releases": [release.version for release in engine.catalogue.releases(manifest.name)],
        "built": sorted(set(built.get(manifest.name, []))),
    }
