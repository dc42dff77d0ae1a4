"""`agentforge framework register|unregister|deprecate`: what a project says of the catalogue in its agentforge.toml."""

from pathlib import Path
from typing import Annotated, Any

import typer

from agentforge.cli.framework import app, deprecation_text
from agentforge.cli.output import Table, print_json, print_text, say
from agentforge.cli.session import JsonOption, ProjectOption, with_forge
from agentforge.errors import UsageFault

__all__ = ["deprecate", "register", "unregister"]

_DEPRECATIONS = "/v1/catalogue/deprecations"


@app.command("register", epilog="Example: agentforge framework register ./adapters/my_framework")
def register(
    path: Annotated[Path, typer.Argument(help="Folder with a framework.toml, or with folders that have one.")],
    as_json: JsonOption = False,
    project: ProjectOption = Path(),
) -> None:
    """Add a framework to this project's catalogue: `[catalogue] folders` in its agentforge.toml."""
    body = {"path": str(path), "base_dir": str(Path.cwd())}
    found = with_forge(project, lambda forge: forge.connection.post("/v1/catalogue/folders", body))
    if as_json:
        print_json(found)
        return
    for name in found["registered"]:
        print_text(name)
        say(f"hint: `agentforge framework show {name}`, then `agentforge run AGENT --on {name}`")


@app.command("unregister", epilog="Example: agentforge framework unregister my-framework")
def unregister(
    name: Annotated[str, typer.Argument(help="Name of a registered framework, or its folder.")],
    as_json: JsonOption = False,
    project: ProjectOption = Path(),
) -> None:
    """Take a registered folder out of this project's catalogue; the folder and built environments stay."""
    query = {"name": name, "base_dir": str(Path.cwd())}
    found = with_forge(project, lambda forge: forge.connection.delete("/v1/catalogue/folders", **query))
    if as_json:
        print_json(found)
    else:
        say(f"took `{found['folder']}` out of agentforge.toml")


@app.command(
    "deprecate",
    epilog="Example: agentforge framework deprecate langchain@0.1 --end 2027-06-30 --successor langchain@1",
)
def deprecate(
    reference: Annotated[
        str | None, typer.Argument(metavar="[RELEASE]", help="name, name@series or name==version.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="DAY", help="Warn from this day on (default: today).")
    ] = None,
    end: Annotated[str | None, typer.Option("--end", metavar="DAY", help="Refuse its use after this day.")] = None,
    successor: Annotated[str | None, typer.Option("--successor", help="What to use instead.")] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why, in a sentence.")] = "",
    unset: Annotated[bool, typer.Option("--unset", help="Take this project's word on it back.")] = False,
    show_list: Annotated[
        bool, typer.Option("--list", help="List what is deprecated, and which agents use it.")
    ] = False,
    as_json: JsonOption = False,
    project: ProjectOption = Path(),
) -> None:
    """Deprecate releases in this project: their use is warned of, and refused after the last day. Days are UTC."""
    if show_list == (reference is not None):
        raise UsageFault("name a release, or give `--list`", hint="agentforge framework deprecate --list")

    async def work(forge: Any) -> Any:
        if show_list:
            return await forge.connection.get(_DEPRECATIONS)
        if unset:
            return await forge.connection.delete(_DEPRECATIONS, framework=reference)
        body = {"framework": reference, "since": since, "end": end, "successor": successor, "reason": reason}
        return await forge.connection.post(_DEPRECATIONS, {k: v for k, v in body.items() if v is not None})

    found = with_forge(project, work)["deprecations"]
    if as_json:
        for each in found:
            print_json(each)
        return
    table = Table("RELEASE", "STATE", "USED BY", "WHAT IS SAID")
    for each in found:
        agents = ", ".join(f"{use['agent']} ({use['file'] or 'by its runs'})" for use in each["agents"])
        table.add(each["reference"], each["state"], agents, deprecation_text(each))
    table.print()
