"""`agentforge env`: the built environments of frameworks and tools."""

from pathlib import Path
from typing import Annotated, Any

import typer

from agentforge.cli.output import Table, print_json, print_text, say
from agentforge.cli.progress import Progress
from agentforge.cli.session import JsonOption, ProjectOption, with_forge

__all__ = ["app"]

app = typer.Typer(help="Environments: build, list, show, remove.", no_args_is_help=True, rich_markup_mode=None)
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of an environment, as `env list` shows it.")]


@app.command("build", epilog="Example: agentforge env build langchain crewai==1.15.30")
def build(
    releases: Annotated[list[str], typer.Argument(metavar="RELEASE...", help="name, name@series or name==version.")],
    as_json: JsonOption = False,
    project: ProjectOption = Path(),
) -> None:
    """Resolve, install and check environments; what is built already is left alone."""
    import asyncio

    async def work(forge: Any) -> list[Any]:
        with Progress() as progress:
            streams = (forge.connection.stream("POST", "/v1/environments", {"on": each}) for each in releases)
            builds = (progress.build(stream) for stream in streams)
            return list(await asyncio.gather(*builds, return_exceptions=True))

    failure: BaseException | None = None
    for built in with_forge(project, work):
        if isinstance(built, BaseException):
            failure = failure or built
        elif as_json:
            print_json(built)
        else:
            print_text(f"{built['id']}  {built['path']}")
    if failure is not None:
        raise failure


@app.command("list", epilog="Example: agentforge env list --json")
def list_environments(
    sizes: Annotated[bool, typer.Option("--sizes", help="Measure their disk use (takes a moment).")] = False,
    as_json: JsonOption = False,
    project: ProjectOption = Path(),
) -> None:
    """List the built environments of this user."""
    found = with_forge(project, lambda forge: forge.connection.get("/v1/environments", sizes=sizes))["environments"]
    if as_json:
        for environment in found:
            print_json(environment)
        return
    table = Table("ENVIRONMENT", "FRAMEWORK", "RELEASE", "PYTHON", "SIZE", "BUILT")
    for each in found:
        size = f"{each['size_bytes'] / 2**20:.0f} MiB" if each["size_bytes"] is not None else None
        table.add(each["id"], each["framework"], each["release"], each["python"], size, each["built_at"])
    table.print()
    if not found:
        say("hint: `agentforge env build langchain` builds one")


@app.command("show", epilog="Example: agentforge env show langchain-1.4.7-py311-0a1b2c3d4e5f")
def show(environment: IdArgument, as_json: JsonOption = False, project: ProjectOption = Path()) -> None:
    """Show one environment."""
    found = with_forge(project, lambda forge: forge.connection.get(f"/v1/environments/{environment}"))
    if as_json:
        print_json(found)
        return
    for key, value in found.items():
        print_text(f"{key:12} {value}")


@app.command("remove", epilog="Example: agentforge env remove langchain-1.4.7-py311-0a1b2c3d4e5f")
def remove(
    environments: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids, as `env list` shows them.")],
    project: ProjectOption = Path(),
) -> None:
    """Remove environments; one that a worker uses is refused."""

    async def work(forge: Any) -> None:
        for each in environments:
            await forge.connection.delete(f"/v1/environments/{each}")
            say(f"removed {each}")

    with_forge(project, work)
