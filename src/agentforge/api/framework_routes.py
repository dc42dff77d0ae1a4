"""The catalogue over HTTP."""

import asyncio
from typing import Any

from fastapi import APIRouter

from agentforge.engine import Engine
from agentforge.frameworks import Manifest

__all__ = ["framework_routes"]


def framework_routes(engine: Engine) -> APIRouter:
    """Return the routes below /frameworks."""
    routes = APIRouter(prefix="/frameworks", tags=["frameworks"])

    @routes.get("", summary="List frameworks")
    async def list_frameworks() -> dict[str, Any]:
        built = await asyncio.to_thread(_built, engine)
        names = engine.catalogue.names()
        return {"frameworks": [_summary(engine, engine.catalogue.get(name), built) for name in names]}

    @routes.get("/{name}", summary="One framework with releases and capabilities")
    async def show(name: str) -> dict[str, Any]:
        manifest = engine.catalogue.get(name)
        built = await asyncio.to_thread(_built, engine)
        return {
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
