"""`agentforge framework`: the catalogue."""

from pathlib import Path
from typing import Annotated

import typer

from agentforge.cli.output import Table, print_json, print_text
from agentforge.cli.session import JsonOption, ProjectOption, with_forge

__all__ = ["app"]

app = typer.Typer(help="Frameworks: list, show.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list", epilog="Example: agentforge framework list")
def list_frameworks(as_json: JsonOption = False, project: ProjectOption = Path()) -> None:
    """List the frameworks that agents can run on."""
    found = with_forge(project, lambda forge: forge.connection.get("/v1/frameworks"))["frameworks"]
    if as_json:
        for each in found:
            print_json(each)
        return
    table = Table("NAME", "TESTED RELEASES", "BUILT", "SUMMARY")
    for each in found:
        table.add(each["name"], ", ".join(each["releases"]), ", ".join(each["built"]), each["summary"])
    table.print()


@app.command("show", epilog="Example: agentforge framework show langchain")
def show(
    name: Annotated[str, typer.Argument(help="Name of a framework.")],
    as_json: JsonOption = False,
    project: ProjectOption = Path(),
) -> None:
    """Show a framework's releases and capabilities."""
    found = with_forge(project, lambda forge: forge.connection.get(f"/v1/frameworks/{name}"))
    if as_json:
        print_json(found)
        return
    print_text(f"{found['title']}: {found['summary']}")
    for key in ("homepage", "docs"):
        if found[key]:
            print_text(f"{key:12} {found[key]}")
    print_text(f"{'tested':12} {', '.join(found['releases']) or '-'}")
    print_text(f"{'built':12} {', '.join(found['built']) or '-'}")
    covers = "; ".join(f"{each['versions']} on Python {each['python']}" for each in found["covers"])
    print_text(f"{'covers':12} {covers}\n")
    table = Table("CAPABILITY", "LEVEL", "SINCE", "NOTE")
    for capability, value in found["capabilities"].items():
        table.add(capability, value["level"], value["since"], value["note"])
    table.print()
