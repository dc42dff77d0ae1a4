"""The catalogue over HTTP: look at it, and change what this project says of it."""

import asyncio
import base64
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from agentforge.api.answers import JsonAnswer, documented
from agentforge.api.framework_schemas import (
    DeprecationList,
    ExampleFiles,
    ExampleList,
    FrameworkComparison,
    FrameworkHits,
    FrameworkList,
    FrameworkObject,
    FrameworkPage,
    FrameworkSettings,
    Registered,
)
from agentforge.config import load_agent
from agentforge.config.checking import check
from agentforge.config.framework_config import DeprecationPolicy
from agentforge.config.source import Source
from agentforge.engine import Engine
from agentforge.frameworks.examples import files_of, find_example

__all__ = ["framework_routes"]

Level = Literal["full", "partial", "todo"]


class Registration(BaseModel):
    """A folder to add to the catalogue of the project."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(description="Folder with a framework.toml, or with folders that have one.")
    base_dir: str = Field(default="", description="Folder that the path starts from; default: the project.")


class Policy(BaseModel):
    """What the project says of some releases."""

    model_config = ConfigDict(extra="forbid")

    framework: str = Field(description="Releases that are meant: `name`, `name@series` or `name==version`.")
    since: date | None = Field(default=None, description="Day from which on their use is warned of; default: today.")
    end: date | None = Field(default=None, description="Last day on which they can be used.")
    successor: str | None = None
    reason: str = ""


def framework_routes(engine: Engine) -> APIRouter:
    """Return the routes below /catalogue, of the whole, and below /frameworks, where any name may follow."""
    routes = APIRouter(tags=["frameworks"])
    whole = APIRouter(prefix="/catalogue")
    _add_looking(whole, engine)
    _add_registering(whole, engine)
    _add_deprecating(whole, engine)
    each = APIRouter(prefix="/frameworks")
    _add_each(each, engine)
    routes.include_router(whole)
    routes.include_router(each)
    return routes


def _add_looking(routes: APIRouter, engine: Engine) -> None:
    @routes.get("/search", summary="Find frameworks by capability and words", **documented(FrameworkHits))
    async def search(
        text: Annotated[str, Query(description="Words that all occur")] = "",
        capability: Annotated[list[str] | None, Query(description="Capability, repeatable")] = None,
        level: Annotated[Level, Query(description="Least level of each capability")] = "partial",
    ) -> JsonAnswer:
        return JsonAnswer({"frameworks": engine.cataloguing.search(text, capability or [], level)})

    @routes.get("/compare", summary="Releases side by side", **documented(FrameworkComparison))
    async def compare(on: Annotated[list[str], Query(description="Release, repeatable")]) -> JsonAnswer:
        return JsonAnswer(await engine.cataloguing.compare(on))


def _add_registering(routes: APIRouter, engine: Engine) -> None:
    @routes.post("/folders", summary="Register a folder in agentforge.toml", **documented(Registered, 201))
    async def register(request: Registration) -> JsonAnswer:
        base = Path(request.base_dir) if request.base_dir else engine.root
        found = await asyncio.to_thread(engine.catalogue_files.register, base / request.path, engine.catalogue)
        return JsonAnswer({"registered": [each.name for each in found], "folder": str(base / request.path)}, 201)

    @routes.delete("/folders", summary="Take a registered folder out", **documented(Registered))
    async def unregister(name: str, base_dir: str = "") -> JsonAnswer:
        base = Path(base_dir) if base_dir else engine.root
        folder = await asyncio.to_thread(engine.catalogue_files.unregister, name, base, engine.catalogue)
        return JsonAnswer({"registered": [], "folder": folder})


def _add_deprecating(routes: APIRouter, engine: Engine) -> None:
    @routes.get("/deprecations", summary="Deprecated releases and who uses them", **documented(DeprecationList))
    async def deprecations() -> JsonAnswer:
        return JsonAnswer({"deprecations": await engine.cataloguing.deprecations()})

    @routes.post("/deprecations", summary="Deprecate releases in agentforge.toml", **documented(DeprecationList, 201))
    async def deprecate(request: Policy) -> JsonAnswer:
        given = {key: value for key, value in request.model_dump(exclude_none=True).items() if value != ""}
        policy = check(DeprecationPolicy, Source("deprecation", {"since": engine.today, **given}))
        await asyncio.to_thread(engine.catalogue_files.deprecate, policy, engine.catalogue)
        return JsonAnswer({"deprecations": await engine.cataloguing.deprecations()}, 201)

    @routes.delete("/deprecations", summary="Take a deprecation back", **documented(DeprecationList))
    async def undeprecate(framework: str) -> JsonAnswer:
        await asyncio.to_thread(engine.catalogue_files.undeprecate, framework)
        return JsonAnswer({"deprecations": await engine.cataloguing.deprecations()})


def _add_each(routes: APIRouter, engine: Engine) -> None:
    @routes.get("", summary="List frameworks", **documented(FrameworkList))
    async def list_frameworks() -> JsonAnswer:
        return JsonAnswer({"frameworks": await engine.cataloguing.frameworks()})

    @routes.get("/{name}", summary="One framework with releases and capabilities", **documented(FrameworkObject))
    async def show(name: str) -> JsonAnswer:
        return JsonAnswer(await engine.cataloguing.show(name))

    @routes.get("/{name}/docs", summary="Our page of a framework", **documented(FrameworkPage))
    async def docs(name: str) -> JsonAnswer:
        return JsonAnswer(await asyncio.to_thread(engine.cataloguing.docs, name))

    @routes.get("/{name}/examples", summary="Examples that run on a framework", **documented(ExampleList))
    async def examples(name: str) -> JsonAnswer:
        return JsonAnswer({"examples": await asyncio.to_thread(engine.cataloguing.examples, name)})

    @routes.get("/{name}/examples/files", summary="The files of one example, in base64", **documented(ExampleFiles))
    async def example(name: str, example: str | None = None) -> JsonAnswer:
        found = find_example(engine.catalogue.covering(name)[1], example)
        files = await asyncio.to_thread(files_of, found)
        encoded = {path: base64.b64encode(data).decode() for path, data in files.items()}
        return JsonAnswer({"name": found.name, "input": found.input, "files": encoded})

    @routes.get("/{name}/config", summary="Settings, and what is set of them", **documented(FrameworkSettings))
    async def config(name: str, agent: str | None = None, base_dir: str = "") -> JsonAnswer:
        project = engine.preparing.project({})
        base = Path(base_dir) if base_dir else engine.root
        definition = await asyncio.to_thread(load_agent, base / agent) if agent else None
        return JsonAnswer(engine.cataloguing.config(name, project, definition))
