"""`agentforge threads`: conversations that several runs continue, on any framework."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from agentforge.api.encoding import encode
from agentforge.cli.output import Table, print_json, print_text, say
from agentforge.cli.session import JsonOption, ProjectOption, with_forge
from agentforge.errors import UsageFault

__all__ = ["app"]

app = typer.Typer(help="Threads: list, show, export, delete.", no_args_is_help=True, rich_markup_mode=None)


def _name(given: str) -> str:
    if not given:
        raise UsageFault("a thread's name is not empty", hint="`agentforge threads list` shows them.")
    return given


ThreadArgument = Annotated[str, typer.Argument(help="Name of a thread.", callback=_name)]


@app.command("list", epilog="Example: agentforge threads list")
def list_threads(as_json: JsonOption = False, project: ProjectOption = Path()) -> None:
    """List the project's threads, the one used last first."""
    found = with_forge(project, lambda forge: forge.threads())
    if as_json:
        for each in found:
            print_json(each)
        return
    table = Table("THREAD", "MESSAGES", "FRAMEWORKS", "LAST RUN", "UPDATED")
    for each in found:
        frameworks = ", ".join(each["frameworks"])
        table.add(each["thread"], each["messages"], frameworks, each["last_run"], each["updated_at"])
    table.print()


@app.command("show", epilog="Example: agentforge threads show q3")
def show(name: ThreadArgument, as_json: JsonOption = False, project: ProjectOption = Path()) -> None:
    """Print a thread's messages, oldest first."""
    for message in with_forge(project, lambda forge: forge.thread(name)):
        print_json(message) if as_json else _print_message(message)


@app.command("export", epilog="Example: agentforge threads export q3 q3.jsonl")
def export(
    name: ThreadArgument,
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="File to write; default: stdout.")] = None,
    project: ProjectOption = Path(),
) -> None:
    """Write a thread as JSON lines: first which runs took part, then its messages, oldest first."""
    found = with_forge(project, lambda forge: forge.connection.get(f"/v1/threads/{name}", export="true"))
    messages = found.pop("messages")
    lines = b"".join(encode(each) + b"\n" for each in (found, *messages))
    if file is None or str(file) == "-":
        sys.stdout.buffer.write(lines)
        sys.stdout.flush()
        return
    try:
        file.write_bytes(lines)
    except OSError as error:
        raise UsageFault(f"`{file}` can't be written: {error.strerror}") from None


@app.command("delete", epilog="Example: agentforge threads delete q3")
def delete(name: ThreadArgument, project: ProjectOption = Path()) -> None:
    """Delete a thread; its runs stay."""
    with_forge(project, lambda forge: forge.delete_thread(name))
    say(f"thread `{name}` is deleted")


def _print_message(message: dict[str, Any]) -> None:
    calls = [f"{call.get('name')}({call.get('arguments')})" for call in message.get("tool_calls") or ()]
    for text in [message.get("content"), *calls]:
        if text:
            print_text(f"{message.get('role', '-')}: {text}")
