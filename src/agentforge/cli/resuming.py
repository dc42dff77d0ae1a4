"""`agentforge runs resume --all`: every run that a killed host left, to its end."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from agentforge.cli.output import print_json, print_text, say, say_failure, shorten
from agentforge.cli.session import with_forge
from agentforge.cli.waiting import say_waiting
from agentforge.errors import AgentForgeError, ErrorInfo

if TYPE_CHECKING:
    from agentforge.api.client import Forge, RunHandle

__all__ = ["resume_all"]

_AT_ONCE = 64
"""Runs that are waited for at once; each takes a connection."""


def resume_all(project: Path, *, as_json: bool, detach: bool) -> None:
    """Go on with what was left and show each result as it comes; exits 1 unless all succeed."""
    began = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    async def work(forge: "Forge") -> list[str]:
        left = await forge.link.resume_left()
        # What ended before is no news: the host was not started by this command.
        runs = [run for run in left["runs"] if (run["finished_at"] or began) >= began]
        if not runs and not left["lacking"]:
            say("there is nothing to resume")
        handles = [forge.attach(run["run_id"]) for run in runs]
        statuses = []
        for handle in (forge.attach(run["run_id"]) for run in left["lacking"]):
            if await _resumed(handle):
                handles.append(handle)
            else:
                statuses.append("queued")
        if detach:
            for handle in handles:
                print_json({"run_id": handle.run_id}) if as_json else print_text(handle.run_id)
            return statuses
        return statuses + await _follow(handles, as_json)

    if any(status != "succeeded" for status in with_forge(project, work)):
        raise typer.Exit(1)


async def _resumed(handle: "RunHandle") -> bool:
    """Have one run go on, or say why it can't."""
    try:
        await handle.resume()
    except AgentForgeError as error:
        say_failure(error.info(), f"{handle.run_id}: ")
        return False
    return True


async def _follow(handles: "list[RunHandle]", as_json: bool) -> list[str]:
    places = asyncio.Semaphore(_AT_ONCE)

    async def ended(handle: "RunHandle") -> dict[str, Any]:
        async with places:
            return dict((await handle.result()).raw)

    statuses = []
    if handles:
        say(f"{len(handles)} runs go on")
    for number, next_one in enumerate(asyncio.as_completed([ended(handle) for handle in handles]), 1):
        result = await next_one
        statuses.append(str(result["status"]))
        say(f"{number} of {len(handles)}: run {result['run_id']} {result['status']}")
        _show(result, as_json)
    return statuses


def _show(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(result)
    else:
        output = shorten(str(result["output"]), 120) if result["status"] == "succeeded" else ""
        print_text(f"{result['run_id']}  {result['status']:9}  {output}".rstrip())
    if result["error"]:
        say_failure(ErrorInfo.from_dict(result["error"]), f"{result['run_id']}: ")
    elif result["status"] == "waiting":
        say_waiting(result)
