"""`agentforge framework health`: how well the environments are."""

from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any

import typer

from agentforge.cli.framework import app
from agentforge.cli.output import Table, print_json, print_text, say, say_failure, say_hint
from agentforge.cli.progress import Progress
from agentforge.cli.session import JsonOption, ProjectOption, with_forge
from agentforge.errors import ErrorInfo, UsageFault
from agentforge.errors.host import RemoteError

__all__ = ["health"]


@app.command("health", epilog="Example: agentforge framework health langchain --probe")
def health(
    wanted: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RELEASE|ID...]", help="name, name@series, name==version, `tools`, or an id."),
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Read all files, start it, make a scripted run; say what comes of it.")
    ] = False,
    history: Annotated[bool, typer.Option("--history", help="Show what was found before, the newest first.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Show changes as they come, until Ctrl-C.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="All that is built, not only what this project uses.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="Most records of the history.")] = 50,
    as_json: JsonOption = False,
    project: ProjectOption = Path(),
) -> None:
    """Show how well environments are: building, ready, degraded or broken; exits 1 if one is broken."""
    if probe + history + follow > 1:
        raise UsageFault("`--probe`, `--history` and `--follow` exclude each other", hint="Give one of them.")
    names = wanted or []
    if follow:
        with_forge(project, lambda forge: _follow(forge, as_json))
    elif history:
        found = with_forge(project, lambda forge: forge.health_history(*names, limit=limit))
        _print_history(found, as_json)
    else:
        states, whole = _states(project, names, everything, probe)
        _print_states(states, as_json)
        if not whole or any(each["state"] == "broken" for each in states):
            raise typer.Exit(1)


def _states(project: Path, names: list[str], everything: bool, probe: bool) -> tuple[list[dict[str, Any]], bool]:
    """Return how environments are, and whether all that were to be probed were."""
    if not probe:
        return with_forge(project, lambda forge: forge.health(*names, everything=everything)), True

    async def probed(forge: Any) -> tuple[list[dict[str, Any]], bool]:
        found, whole = [], True
        body = {"on": names, "all": everything}
        with Progress() as progress:
            async with aclosing(forge.connection.stream("POST", "/v1/health/probes", body)) as events:
                async for kind, data in events:
                    if kind == "progress":
                        progress.stage(data)
                    elif kind == "probed":
                        progress.done(data["environment"])
                        found.append(data)
                    elif kind == "error":
                        raise RemoteError(ErrorInfo.from_dict(data), int(data.get("exit_code", 1)))
                    elif kind == "failed":
                        whole = False
                        progress.clear()
                        say_failure(ErrorInfo.from_dict(data))
        return found, whole

    return with_forge(project, probed)


def _print_states(states: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        for each in states:
            print_json(each)
        return
    table = Table("ENVIRONMENT", "STATE", "CHECKED", "BY", "WHAT IS WRONG")
    for each in states:
        at = _short(each["checked_at"])
        table.add(each["environment"], each["state"], at, each["checked_by"], each["problem"])
    table.print()
    if not states:
        say("this project uses no environment that is built; `--all` shows those of others")
    for each in states:
        if each["state"] == "broken":
            say_hint(f"`agentforge env build --rebuild {each['environment']}` makes it anew")


def _print_history(records: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        for each in records:
            print_json(each)
        return
    table = Table("SEQ", "AT", "ENVIRONMENT", "STATE", "BEFORE", "BY", "START", "WHAT IS WRONG")
    for each in records:
        start = f"{each['start_s']:.1f} s" if each["start_s"] is not None else None
        before = each["previous"] if each["changed"] else "the same"
        at = _short(each["at"])
        table.add(each["seq"], at, each["environment"], each["state"], before, each["cause"], start, each["problem"])
    table.print()


def _short(at: str | None) -> str | None:
    """Return a moment to the second."""
    return at and at.partition(".")[0].replace("T", " ") + "Z"


async def _follow(forge: Any, as_json: bool) -> None:
    say("following; Ctrl-C ends it")
    async with aclosing(forge.health_changes()) as changes:
        async for each in changes:
            if as_json:
                print_json(each)
            else:
                problem = f": {each['problem']}" if each["problem"] else ""
                print_text(f"{each['at']}  {each['environment']}  {each['previous']} -> {each['state']}{problem}")
