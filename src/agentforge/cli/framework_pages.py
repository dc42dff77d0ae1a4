"""`agentforge framework docs|examples|config`: what one framework brings for people who use it."""

import base64
import json
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import typer

from agentforge.api.paths import framework_path
from agentforge.cli.framework import app
from agentforge.cli.output import Table, print_json, print_text, say
from agentforge.cli.session import JsonOption, ProjectOption, with_forge
from agentforge.errors import UsageFault

__all__ = ["config", "docs", "examples"]

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of a framework.")]
_WIDTH = 100


@app.command("docs", epilog="Example: agentforge framework docs langchain")
def docs(name: NameArgument, as_json: JsonOption = False, project: ProjectOption = Path()) -> None:
    """Show our page of a framework (how concepts map, limits, settings), and where its own documentation is."""
    found = with_forge(project, lambda forge: forge.connection.get(framework_path(name, "/docs")))
    if as_json:
        print_json(found)
        return
    if found["text"]:
        print_text(_rendered(found["text"]))
    else:
        say(f"{found['title']} comes without a page of its own")
    for kind, address in found["links"].items():
        print_text(f"{kind:12} {address}")


def _rendered(markdown: str) -> str:
    import io

    from rich.console import Console
    from rich.markdown import Markdown

    out = io.StringIO()
    Console(file=out, width=_WIDTH, no_color=True, highlight=False).print(Markdown(markdown, hyperlinks=False))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


@app.command("examples", epilog="Example: agentforge framework examples crewai expenses --copy my-agent")
def examples(
    name: NameArgument,
    example: Annotated[str | None, typer.Argument(metavar="[EXAMPLE]", help="One of them.")] = None,
    copy: Annotated[Path | None, typer.Option("--copy", metavar="DIR", help="Copy it into a new folder.")] = None,
    as_json: JsonOption = False,
    project: ProjectOption = Path(),
) -> None:
    """List the examples that run on a framework, or start from one."""
    if copy is not None or example is not None:
        _one(name, example, copy, project, as_json=as_json)
        return
    answer = with_forge(project, lambda forge: forge.connection.get(framework_path(name, "/examples")))
    if as_json:
        for each in answer["examples"]:
            print_json(each)
        return
    table = Table("EXAMPLE", "KIND", "ASK IT", "SUMMARY")
    for each in answer["examples"]:
        table.add(each["name"], each["kind"], each["input"], each["summary"])
    table.print()


def _one(name: str, example: str | None, copy: Path | None, project: Path, *, as_json: bool) -> None:
    if copy is not None and _taken(copy):
        raise UsageFault(f"`{copy}` is there already", hint="Name a new folder: nothing is written over.")
    path = framework_path(name, "/examples/files")
    found = with_forge(project, lambda forge: forge.connection.get(path, example=example))
    files = {path: base64.b64decode(data) for path, data in found["files"].items()}
    if copy is None:
        if as_json:
            print_json({**found, "files": sorted(files)})
        for path in () if as_json else sorted(files):
            print_text(path)
        return
    for relative, data in files.items():
        if PurePosixPath(relative).is_absolute() or ".." in PurePosixPath(relative).parts:
            raise UsageFault(f"the example holds a file outside of its folder: `{relative}`")
        _write(copy / relative, data)
        if not as_json:
            print_text(str(copy / relative))
    if as_json:
        print_json({**found, "files": sorted(files), "folder": str(copy)})
    question = json.dumps(found["input"]) if found["input"] else ""
    say(f"hint: agentforge run {copy} {question} --on {name}".replace("  ", " "))


def _taken(folder: Path) -> bool:
    try:
        return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise _unwritable(folder, error) from None


def _write(place: Path, data: bytes) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    except OSError as error:
        raise _unwritable(place, error) from None


def _unwritable(place: Path, error: OSError) -> UsageFault:
    return UsageFault(f"`{place}` can't be written: {error.strerror}", hint="Name a folder that you may write.")


@app.command("config", epilog="Example: agentforge framework config langchain --agent agent.yaml")
def config(
    name: Annotated[str, typer.Argument(metavar="NAME", help="name, name@series or name==version.")],
    agent: Annotated[str | None, typer.Option("--agent", help="Agent file whose settings count too.")] = None,
    as_json: JsonOption = False,
    project: ProjectOption = Path(),
) -> None:
    """Show a framework's settings, and what the project and an agent set of them."""
    query = {"agent": agent, "base_dir": str(Path.cwd())}
    found = with_forge(project, lambda forge: forge.connection.get(framework_path(name, "/config"), **query))
    if as_json:
        print_json(found)
        return
    print_text(f"settings of {found['name']} {found['release']}")
    table = Table("SETTING", "TYPE", "DEFAULT", "PROJECT", "AGENT", "WHAT IT IS FOR")
    for each in found["settings"]:
        values = (_shown(each[key]) for key in ("default", "project", "agent"))
        table.add(each["setting"], _shown(each["type"]), *values, each["description"])
    table.print()
    for by in ("project", "agent"):
        for key, value in found[by].items():
            print_text(f"{by} {key:14} {_listed(value)}")
    for warning in found["warnings"]:
        say(f"warning: {warning}")
    print_text(f"worker variables       {_listed(found['variables']) or '-'}")


def _shown(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def _listed(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={each}" for key, each in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
