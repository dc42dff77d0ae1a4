"""`agentforge env update|rollback|diff`: which generation of an environment this project uses."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from agentforge.cli.env import LatestOption, app
from agentforge.cli.output import Table, print_json, print_text, say, say_failure, shorten
from agentforge.cli.progress import Progress
from agentforge.cli.session import JsonOption, ProjectOption, with_forge
from agentforge.errors import ErrorInfo, UsageFault

__all__ = ["diff", "rollback", "update"]

_SHOWN = 5
"""Differences of one run that are printed; `--json` has all."""


@app.command("update", epilog="Example: agentforge env update langchain --runs 50")
def update(
    requests: Annotated[
        list[str] | None,
        typer.Argument(metavar="[REQUEST...]", help="As agentforge.lock has them; default: all of frameworks."),
    ] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="VERSION", help="Go to this version.")] = None,
    latest: LatestOption = False,
    refresh: Annotated[
        bool,
        typer.Option("--refresh", help="Resolve locks anew, with the packages of today, also of the same release."),
    ] = False,
    runs: Annotated[
        int, typer.Option("--runs", min=0, max=1000, help="Recorded runs of each agent that have to go as before.")
    ] = 20,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Try it all, and keep the old generation.")] = False,
    as_json: JsonOption = False,
    project: ProjectOption = Path(),
) -> None:
    """Build newer environments beside the present ones, try them with scripted scenarios and the project's recorded
    runs, and use those that are green. Nothing real is asked or called. Exit code 1 if one was refused.
    """
    if to is not None and latest:
        raise UsageFault("`--to` and `--latest` exclude each other")
    body = {"requests": requests or [], "to": to, "latest": latest, "refresh": refresh, "runs": runs,
            "dry_run": dry_run}  # fmt: skip

    async def work(forge: Any) -> Any:
        body["variables"] = forge.variables()
        with Progress() as progress:
            return await progress.build(forge.connection.stream("POST", "/v1/environments/updates", body))

    reports = with_forge(project, work)["updates"]
    for report in reports:
        print_json(report) if as_json else _print_report(report)
    if not reports:
        say("hint: agentforge.lock has no request of a framework yet; a run or `agentforge env build` makes one")
    if any(report["status"] == "refused" for report in reports):
        raise typer.Exit(1)


def _print_report(report: Mapping[str, Any]) -> None:
    named = " ".join((report["request"], *report["requirements"]))
    before, after = report["from"], report["to"]
    if report["status"] == "current":
        print_text(f"{named}  {before['release']} (generation {before['generation']})  is current")
        return
    ways = {"promoted": "promoted", "passed": "would be promoted", "refused": "refused"}
    to = after["release"] if after else "?"
    place = f" (generation {after['generation']})" if after and after["generation"] else ""
    print_text(f"{named}  {before['release']} -> {to}{place}  {ways[report['status']]}")
    if report["packages"]:
        print_text(f"  packages: {_packages(report['packages'])}")
    if report["smoke"]:
        count = {state: sum(each["state"] == state for each in report["smoke"]) for state in ("passed", "skipped")}
        print_text(f"  scenarios: {count['passed']} of {len(report['smoke']) - count['skipped']} passed")
    if report["runs"]:
        _print_runs(report["runs"])
    for warning in report["warnings"]:
        say(f"warning: {warning}")
    if report["refused"] is not None:
        say_failure(ErrorInfo.from_dict(report["refused"]), f"{named}: ")


def _packages(packages: list[dict[str, Any]]) -> str:
    signs = {"added": "+{name} {after}", "removed": "-{name} {before}", "changed": "{name} {before} -> {after}"}
    return shorten(", ".join(signs[each["change"]].format(**each) for each in packages), 300)


def _print_runs(runs: list[dict[str, Any]]) -> None:
    same = sum(each["state"] == "same" for each in runs)
    wire = sum(bool(each["wire"]) for each in runs)
    said = f", {wire} with other requests on the wire" if wire else ""
    print_text(f"  recorded runs: {same} of {len(runs)} went as before{said}")
    for each in runs:
        if each["state"] == "different":
            print_text(f"    {each['run_id']} ({each['agent']}):")
            for difference in each["differences"][:_SHOWN]:
                print_text(f"      {difference['message']}")


@app.command("rollback", epilog="Example: agentforge env rollback langchain")
def rollback(
    request: Annotated[str, typer.Argument(metavar="REQUEST", help="As agentforge.lock has it.")],
    to: Annotated[
        int | None, typer.Option("--to", metavar="GENERATION", help="Default: the one before the active one.")
    ] = None,
    packages: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="PACKAGE", help="Additional packages, of a request with several sets of them."),
    ] = None,
    build: Annotated[bool, typer.Option("--build", help="Build its environment again if it is gone.")] = False,
    as_json: JsonOption = False,
    project: ProjectOption = Path(),
) -> None:
    """Use an earlier generation again. Runs under way go on in their environments."""
    body = {"request": request, "to": to, "packages": packages, "build": build}

    async def work(forge: Any) -> Any:
        with Progress() as progress:
            return await progress.build(forge.connection.stream("POST", "/v1/environments/rollbacks", body))

    found = with_forge(project, work)
    if as_json:
        print_json(found)
        return
    before = found["before"]
    print_text(f"{found['request']}  generation {before['generation']} -> {found['generation']}  {found['release']}")


@app.command("diff", epilog="Example: agentforge env diff langchain#1 langchain")
def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="Id, reference, or REQUEST#GENERATION.")],
    after: Annotated[str, typer.Argument(metavar="B", help="The same.")],
    as_json: JsonOption = False,
    project: ProjectOption = Path(),
) -> None:
    """Show which packages two environments differ in; they need not be built."""
    query = {"before": before, "after": after}
    found = with_forge(project, lambda forge: forge.connection.get("/v1/environments/diff", **query))
    if as_json:
        print_json(found)
        return
    table = Table("PACKAGE", "CHANGE", before, after)
    if found["python"] is not None:
        table.add("Python", "changed", found["python"]["before"], found["python"]["after"])
    for each in found["packages"]:
        table.add(each["name"], each["change"], each["before"], each["after"])
    table.print()
    say(f"{len(found['packages'])} packages differ, {found['unchanged']} are the same")
