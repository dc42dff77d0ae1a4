"""The reference of the command line, out of the Typer app."""

from collections.abc import Iterator
from typing import Any

import typer

from agentforge.cli.main import app
from generators.markdown import table

__all__ = ["cli", "commands"]


def commands(command: Any = None, path: str = "agentforge") -> Iterator[tuple[str, Any]]:
    """Yield every command of the command line that does something, with what one types to reach it."""
    command = command or typer.main.get_command(app)
    below = getattr(command, "commands", {})
    if not below:
        yield path, command
    for name, each in below.items():
        yield from commands(each, f"{path} {name}")


def cli() -> str:
    """Every command with its arguments and options."""
    return "\n\n".join(_command(path, command) for path, command in commands())


def _command(path: str, command: Any) -> str:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and not each.hidden]
    usage = " ".join([path, *map(_argument, arguments), "[OPTIONS]"])
    lines = [f"## {path}", "", (command.help or "").strip(), "", "```text", usage, "```", ""]
    rows = [(f"`{_argument(each)}`", each.help or "") for each in arguments]
    rows += [(_option(each), _option_help(each)) for each in options]
    lines += [table(("argument or option", "what it does"), rows), ""]
    example = str(command.epilog or "").removeprefix("Example: ")
    if example:
        lines += ["Example:", "", "```bash", example, "```"]
    return "\n".join(lines)


def _argument(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    return name if argument.required or name.startswith("[") else f"[{name}]"


def _option(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    return names if option.is_flag else f"{names} *value*"


def _option_help(option: Any) -> str:
    text = option.help or ""
    default = option.default
    if isinstance(default, str | int) and not isinstance(default, bool) and not callable(default):
        text += f" Default: `{default}`."
    return text
