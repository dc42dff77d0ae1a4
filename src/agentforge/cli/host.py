"""`agentforge host`: the process that serves the project."""

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from agentforge.api.place import HostPlace, answers, host_place, listens
from agentforge.cli.output import Table, print_json, print_text, say
from agentforge.cli.session import JsonOption, ProjectOption
from agentforge.config import find_project
from agentforge.errors.host import HostGone, NoHost

__all__ = ["app"]

app = typer.Typer(help="The project's host: status, stop, logs.", no_args_is_help=True, rich_markup_mode=None)
_STOP_TIMEOUT_S = 30.0


@app.command("status", epilog="Example: agentforge host status --json")
def status(as_json: JsonOption = False, project: ProjectOption = Path()) -> None:
    """Show whether a host runs, what it does, and its workers."""
    found = _with_host(project, lambda connection: connection.get("/v1/host"))
    if as_json:
        print_json(found)
        return
    for key in ("project", "version", "pid", "started_at", "active_runs", "idle_s", "socket"):
        print_text(f"{key:12} {found[key]}")
    table = Table("WORKER", "KIND", "OF", "PID", "RUNS", "RSS")
    for worker in found["workers"]:
        rss = f"{worker['rss_mib']:.0f} MiB"
        table.add(worker["id"], worker["kind"], worker["label"], worker["pid"], worker["runs"], rss)
    if found["workers"]:
        print_text("")
        table.print()


@app.command("stop", epilog="Example: agentforge host stop")
def stop(project: ProjectOption = Path()) -> None:
    """Stop the host and its workers; runs under way go on with the next host."""
    place = host_place(find_project(project))

    async def work(connection: Any) -> None:
        await connection.post("/v1/host/stop")

    _with_host(project, work)
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while _held(place) and time.monotonic() < deadline:
        time.sleep(0.05)
    say("the host has stopped" if not _held(place) else "the host is still stopping")


@app.command("logs", epilog="Example: agentforge host logs -n 50")
def logs(
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="Last lines to print.")] = 100,
    project: ProjectOption = Path(),
) -> None:
    """Print the host's log."""
    log = host_place(find_project(project)).log
    try:
        text = log.read_text("utf-8", "replace")
    except OSError:
        raise NoHost(f"there is no log at `{log}`") from None
    print_text("\n".join(text.splitlines()[-lines:]))


def _with_host(project: Path, work: Callable[[Any], Awaitable[Any]]) -> Any:
    """Run `work` with a connection to the running host; starts none. Raises NoHost."""
    import asyncio

    from agentforge.api.connection import Connection

    place = host_place(find_project(project))
    if not answers(place):
        if listens(place):
            hint = "The next command replaces it once its lease is over."
            raise HostGone(f"the host of `{place.root}` does not answer", hint=hint)
        raise NoHost(f"no host serves `{place.root}`")

    async def connected() -> Any:
        connection = Connection(socket=place.socket)
        try:
            return await work(connection)
        finally:
            await connection.close()

    return asyncio.run(connected())


def _held(place: HostPlace) -> bool:
    """Whether a host process still holds the project."""
    import fcntl

    try:
        with place.lock.open("a+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
