"""The `agentforge` command: its tree of commands and the one place where failures become exit codes."""

import io
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from agentforge.cli import arguments, compat, demo, doctor, env, framework, host, init, run, runs, threads
from agentforge.cli import env_changes as _env_changes
from agentforge.cli import framework_changes as _changes
from agentforge.cli import framework_health as _health
from agentforge.cli import framework_pages as _pages
from agentforge.cli.output import say_error
from agentforge.errors import AgentForgeError, InternalError

__all__ = ["app", "main"]

_MORE = (_pages, _changes, _env_changes, _health)
"""Modules that add their commands to another one's."""

app = typer.Typer(
    name="agentforge",
    help="Run any agent of any framework, any release of it, through one host.",
    epilog='Example: agentforge run agent.yaml "How much was travel?" --on langchain,crewai',
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run", epilog=run.EXAMPLE)(run.run)
app.command("init", epilog=init.EXAMPLE)(init.init)
app.command("demo", epilog=demo.EXAMPLE)(demo.demo)
app.command("doctor", epilog=doctor.EXAMPLE)(doctor.doctor)
app.command("compat", epilog=compat.EXAMPLE)(compat.compat)
app.add_typer(framework.app, name="framework")
app.add_typer(env.app, name="env")
app.add_typer(runs.app, name="runs")
app.add_typer(threads.app, name="threads")
app.add_typer(host.app, name="host")


def _version(asked: bool) -> None:
    if asked:
        from agentforge import __version__

        typer.echo(f"agentforge {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Run any agent of any framework, any release of it, through one host."""


def main() -> None:
    """Run the command line and end the process with its exit code: 0, 1, 2, 3 or 130."""
    sys.exit(_run())


def _run() -> int:
    _print_anything()
    try:
        arguments.text_only(sys.argv[1:])
        status = app(standalone_mode=False)
        return status if isinstance(status, int) else 0
    except AgentForgeError as error:
        say_error(error)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except typer.Exit as leave:
        return leave.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return _usage_or_bug(error)


def _print_anything() -> None:
    """Have stdout escape what can't be printed, as stderr does: half of a surrogate pair in a model's text."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _usage_or_bug(error: Exception) -> int:
    show = getattr(error, "show", None)
    if callable(show):  # the command line itself is wrong: typer says what and how
        show()
        return int(getattr(error, "exit_code", 2))
    report = _write_report(error)
    say_error(
        InternalError(f"`{type(error).__name__}`: {error}", hint=f"This is our bug; the report is in `{report}`.")
    )
    return InternalError.exit_code


def _write_report(error: Exception) -> Path:
    import platform
    import tempfile

    from agentforge import __version__

    descriptor, name = tempfile.mkstemp(prefix="agentforge-report-", suffix=".txt")
    with os.fdopen(descriptor, "w") as report:
        report.write(f"agentforge {__version__}, Python {platform.python_version()}, {platform.platform()}\n")
        report.write(f"command: {' '.join(sys.argv[1:2])} ...\n\n")
        report.write("".join(traceback.format_exception(error)))
    return Path(name)
