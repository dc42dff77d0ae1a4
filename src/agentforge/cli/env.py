"""`agentforge env`: the built environments of frameworks and tools."""

from pathlib import Path
from typing import Annotated, Any

import typer

from agentforge.cli import env_keeping
from agentforge.cli.output import Table, print_json, print_text, say, say_error
from agentforge.cli.progress import Progress
from agentforge.cli.session import JsonOption, ProjectOption, with_forge
from agentforge.errors import AgentForgeError

__all__ = ["LatestOption", "app"]

app = typer.Typer(
    help="Environments: build, list, show, update, rollback, diff, remove, collect, export, import.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
LatestOption = Annotated[
    bool, typer.Option("--latest", help="Take the newest release on the package index, not the newest tested one.")
]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of an environment, as `env list` shows it.")]


@app.command("build", epilog="Example: agentforge env build langchain crewai==1.15.30")
def build(
    releases: Annotated[list[str], typer.Argument(metavar="RELEASE...", help="name, name@series or name==version.")],
    latest: LatestOption = False,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Make what is built anew, too; an environment's id is understood then.")
    ] = False,
    as_json: JsonOption = False,
    project: ProjectOption = Path(),
) -> None:
    """Resolve, install and check environments; what is built already is left alone, unless it is to be made anew."""
    import asyncio

    async def work(forge: Any) -> list[Any]:
        variables = forge.variables()
        with Progress() as progress:
            bodies = [{"on": each, "latest": latest, "rebuild": rebuild, "variables": variables} for each in releases]
            builds = (progress.build(forge.connection.stream("POST", "/v1/environments", body)) for body in bodies)
            return list(await asyncio.gather(*builds, return_exceptions=True))

    failure: BaseException | None = None
    for built in with_forge(project, work):
        if isinstance(built, BaseException):
            if failure is not None and isinstance(failure, AgentForgeError):
                say_error(failure)  # the last one is said by who called us
            failure = built
        elif as_json:
            print_json(built)
        else:
            print_text(f"{built['id']}  {built['path']}")
        for warning in () if isinstance(built, BaseException) else built["warnings"]:
            say(f"warning: {warning}")
    if failure is not None:
        raise failure


@app.command("list", epilog="Example: agentforge env list --generations")
def list_environments(
    sizes: Annotated[bool, typer.Option("--sizes", help="Measure their disk use (takes a moment).")] = False,
    generations: Annotated[
        bool, typer.Option("--generations", help="List what this project's agentforge.lock has, built or not.")
    ] = False,
    as_json: JsonOption = False,
    project: ProjectOption = Path(),
) -> None:
    """List the built environments of this user, each with what this project has it for (`*`: active)."""
    answer = with_forge(project, lambda forge: forge.connection.get("/v1/environments", sizes=sizes))
    found = answer["generations" if generations else "environments"]
    if as_json:
        for each in found:
            print_json(each)
    elif generations:
        _print_generations(found)
    else:
        _print_environments(found)


def _print_environments(found: list[dict[str, Any]]) -> None:
    table = Table("ENVIRONMENT", "FRAMEWORK", "RELEASE", "PYTHON", "SIZE", "REQUEST", "BUILT")
    for each in found:
        size = f"{each['size_bytes'] / 2**20:.0f} MiB" if each["size_bytes"] is not None else None
        uses = ", ".join(map(_use, each["requests"]))
        table.add(each["id"], each["framework"], each["release"], each["python"], size, uses, each["built_at"])
    table.print()
    if not found:
        say("hint: `agentforge env build langchain` builds one")


def _print_generations(found: list[dict[str, Any]]) -> None:
    table = Table("REQUEST", "GENERATION", "ACTIVE", "RELEASE", "ENVIRONMENT", "BUILT")
    for each in found:
        named = " + ".join((each["request"], *each["requirements"]))
        active, built = ("yes" if each[key] else "no" for key in ("active", "built"))
        table.add(named, each["generation"], active, each["release"], each["environment"], built)
    table.print()


@app.command("show", epilog="Example: agentforge env show langchain-1.4.7-py311-0a1b2c3d4e5f")
def show(environment: IdArgument, as_json: JsonOption = False, project: ProjectOption = Path()) -> None:
    """Show one environment."""
    found = with_forge(project, lambda forge: forge.connection.get(f"/v1/environments/{environment}"))
    if as_json:
        print_json(found)
        return
    needs, warnings = found.pop("needed_by") or [], found.pop("warnings", [])
    for key, value in found.items():
        print_text(f"{key:12} {', '.join(map(_use, value)) if key == 'requests' else value}")
    for need in needs:
        print_text(f"{'needed by':12} {need['project']} ({need['by']} {need['name']})")
    for warning in warnings:
        say(f"warning: {warning}")


def _use(use: dict[str, Any]) -> str:
    """Return what a project has an environment for: `langchain#2*`."""
    named = " + ".join((f"{use['request']}#{use['generation']}", *use["requirements"]))
    return f"{named}*" if use["active"] else named


env_keeping.add_to(app)
