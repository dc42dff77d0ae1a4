"""`agentforge framework`: look at the catalogue."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from agentforge.api.paths import framework_path
from agentforge.cli.output import Table, print_json, print_text, say
from agentforge.cli.session import JsonOption, ProjectOption, with_forge

__all__ = ["app", "deprecation_text"]

app = typer.Typer(
    help="Frameworks: list, search, show, compare, docs, examples, config, register, deprecate, health.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
NOT_MEASURED = "not measured here"
_MEASURED = {
    "size": "size on disk",
    "import": "start with import",
    "memory": "memory",
    "overhead": "overhead",
    "conformance": "conformance",
}


@app.command("list", epilog="Example: agentforge framework list")
def list_frameworks(as_json: JsonOption = False, project: ProjectOption = Path()) -> None:
    """List the frameworks that agents can run on: tested releases, what is built and how it is, where it comes from."""
    found = with_forge(project, lambda forge: forge.connection.get("/v1/frameworks"))["frameworks"]
    if as_json:
        for each in found:
            print_json(each)
        return
    table = Table("NAME", "TESTED RELEASES", "BUILT", "HEALTH", "FROM", "SUMMARY")
    for each in found:
        releases = [f"{v} (deprecated)" if v in each["deprecated"] else v for v in each["releases"]]
        summary = f"can't be used: {each['error']['message']}" if each["error"] else each["summary"]
        built, health = ", ".join(each["built"]), _health(each["health"])
        table.add(each["name"], ", ".join(releases), built, health, each["origin"], summary.splitlines()[0])
    table.print()


def _health(states: dict[str, str]) -> str:
    """Return the states of what is built: one word where all are well."""
    ill = [f"{release} {state}" for release, state in states.items() if state != "ready"]
    return ", ".join(ill) if ill else "ready" if states else ""


@app.command("search", epilog="Example: agentforge framework search --with tools,streaming --level full graph")
def search(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[WORD...]", help="Words that its texts have, whatever their case.")
    ] = None,
    needed: Annotated[
        str | None, typer.Option("--with", help="Capabilities that it has, with commas: `tools,streaming`.")
    ] = None,
    level: Annotated[
        Literal["full", "partial"], typer.Option("--level", help="Least level of each of them: `full` or `partial`.")
    ] = "partial",
    as_json: JsonOption = False,
    project: ProjectOption = Path(),
) -> None:
    """Find frameworks by what they can do, and by words in names, titles, summaries and notes; exits 1 without any."""
    capabilities = [each.strip() for each in (needed or "").split(",") if each.strip()]
    query = {"text": " ".join(words or []), "capability": capabilities, "level": level}
    answer = with_forge(project, lambda forge: forge.connection.get("/v1/catalogue/search", **query))
    found = answer["frameworks"]
    if as_json:
        for each in found:
            print_json(each)
    else:
        table = Table("NAME", "RELEASE", *(name.upper() for name in capabilities), "SUMMARY")
        for each in found:
            levels = (each["capabilities"][name]["level"] for name in capabilities)
            table.add(each["name"], each["release"], *levels, each["summary"])
        table.print()
    if not found:
        say("no framework has all of that; `agentforge framework compare A B` shows what each can")
        raise typer.Exit(1)


@app.command("show", epilog="Example: agentforge framework show langchain@0.3")
def show(
    name: Annotated[str, typer.Argument(help="name, name@series or name==version.")],
    as_json: JsonOption = False,
    project: ProjectOption = Path(),
) -> None:
    """Show a framework's releases and capabilities, and which agents use deprecated ones."""
    found = with_forge(project, lambda forge: forge.connection.get(framework_path(name)))
    if as_json:
        print_json(found)
        return
    print_text(f"{found['title']}: {found['summary']}")
    for key in ("homepage", "docs"):
        if found[key]:
            print_text(f"{key:12} {found[key]}")
    print_text(f"{'from':12} {found['origin']}, {found['folder']}")
    print_text(f"{'tested':12} {', '.join(found['releases']) or '-'}")
    print_text(f"{'built':12} {', '.join(found['built']) or '-'}")
    covers = "; ".join(f"{each['versions']} on Python {each['python']}" for each in found["covers"])
    print_text(f"{'covers':12} {covers}")
    for version, said in found["deprecated"].items():
        print_text(f"{'deprecated':12} {version}: {deprecation_text(said)}")
    for use in found["affected"]:
        print_text(f"{'used by':12} {use['agent']} on {use['release']} ({use['file'] or 'by its runs'})")
    print_text(f"\ncapabilities of {found['release'] or 'its releases'}")
    table = Table("CAPABILITY", "LEVEL", "SINCE", "NOTE")
    for capability, value in found["capabilities"].items():
        table.add(capability, value["level"], value["since"], value["note"])
    table.print()


@app.command("compare", epilog="Example: agentforge framework compare langchain crewai@1 pydantic-ai")
def compare(
    releases: Annotated[list[str], typer.Argument(metavar="RELEASE...", help="name, name@series or name==version.")],
    notes: Annotated[bool, typer.Option("--notes", help="Say below why a level is not higher.")] = False,
    as_json: JsonOption = False,
    project: ProjectOption = Path(),
) -> None:
    """Compare releases side by side: capabilities, and what was measured of them on this machine."""
    found = with_forge(project, lambda forge: forge.connection.get("/v1/catalogue/compare", on=releases))
    if as_json:
        print_json(found)
        return
    columns = found["columns"]
    table = Table("", *(f"{each['framework']} {each['release']}" for each in columns))
    table.add("python", *(each["python"] for each in columns))
    for capability, values in found["capabilities"].items():
        table.add(capability, *(value["level"] for value in values))
    for key, title in _MEASURED.items():
        table.add(title, *(_measured(each["measured"][key]) for each in columns))
    if any(each["deprecated"] for each in columns):
        table.add("deprecated", *(each["deprecated"] and each["deprecated"]["state"] for each in columns))
    table.print()
    for capability, values in found["capabilities"].items() if notes else ():
        for column, value in zip(columns, values, strict=True):
            if value["note"]:
                print_text(f"{capability}, {column['reference']}: {value['note']}")


def _measured(value: dict[str, Any] | None) -> str:
    return NOT_MEASURED if value is None else f"{value['value']:g} {value['unit']}"


def deprecation_text(said: dict[str, Any]) -> str:
    """Return what is said of a release's end, in words."""
    text = {"announced": "from", "deprecated": "since", "ended": "since"}[said["state"]] + f" {said['since']}"
    text += f", can be used until {said['end']}" if said["end"] else ""
    text += " (over)" if said["state"] == "ended" else ""
    text += f", use {said['successor']}" if said["successor"] else ""
    return text + (f": {said['reason']}" if said["reason"] else "") + f" (says the {said['by']})"
