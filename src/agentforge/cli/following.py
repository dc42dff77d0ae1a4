"""Following a run to where it ends or waits, and showing it: what `run`, `runs resume`, `answer` and `fork` share."""

import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentforge.cli.output import print_json, print_text
from agentforge.cli.progress import Progress
from agentforge.cli.session import with_forge
from agentforge.cli.showing import JsonShown, Shown, TextShown

if TYPE_CHECKING:
    from agentforge.api.client import Forge, RunHandle

__all__ = ["DetachOption", "StreamOption", "follow", "follow_and_show"]

DetachOption = Annotated[bool, typer.Option("--detach", help="Print the run's id and leave; it goes on.")]
StreamOption = Annotated[bool, typer.Option("--stream", help="Show the answer as it comes; with --json the events.")]


async def follow(handle: "RunHandle", name: str, shown: Shown, progress: Progress, after: int = 0) -> dict[str, Any]:
    """Show a run's events above `after` as they come, and return its result object."""
    result: dict[str, Any] = {}
    async with contextlib.aclosing(handle.watch(after)) as items:
        async for item in items:
            if hasattr(item, "kind"):
                progress.event(name, item)
                shown.event(item)
            else:
                result = dict(item.raw)
    return result


def follow_and_show(
    project: Path,
    begin: "Callable[[Forge], Awaitable[RunHandle]]",
    *,
    as_json: bool,
    stream: bool,
    detach: bool,
    goes_on: str | None = None,
) -> None:
    """Have a run go on as `begin` does and show it as `agentforge run` would; exits 1 unless it succeeds.

    Of a run that `goes_on` the events so far are not shown again.
    """

    async def work(forge: "Forge") -> str:
        after = await _last_event(forge, goes_on) if goes_on is not None and stream else 0
        handle = await begin(forge)
        if detach:
            print_json({"run_id": handle.run_id}) if as_json else print_text(handle.run_id)
            return "succeeded"
        shown = JsonShown(stream) if as_json else TextShown(stream)
        with Progress() as progress:
            shown.progress = progress
            result = await follow(handle, "run", shown, progress, after)
            progress.done("run")
            shown.result(result)
        shown.end([result])
        return str(result["status"])

    if with_forge(project, work) != "succeeded":
        raise typer.Exit(1)


async def _last_event(forge: "Forge", run_id: str) -> int:
    """Return the number of a run's last event so far."""
    last, following = 0, 0
    while following is not None:
        page = await forge.connection.get(f"/v1/runs/{run_id}/events", after=following)
        last = page["events"][-1]["seq"] if page["events"] else last
        following = page["next"]
    return last
