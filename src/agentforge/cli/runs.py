"""`agentforge runs`: what ran and what is running."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from agentforge.cli import arguments
from agentforge.cli.output import Table, print_json, print_text, say
from agentforge.cli.session import JsonOption, ProjectOption, with_forge

__all__ = ["app"]

app = typer.Typer(help="Runs: list, show, watch, cancel.", no_args_is_help=True, rich_markup_mode=None)
RunArgument = Annotated[str, typer.Argument(help="Id of a run, as `runs list` shows it.", callback=arguments.run_id)]
Status = Literal["queued", "running", "waiting", "succeeded", "failed", "cancelled"]


@app.command("list", epilog="Example: agentforge runs list --status failed --limit 10")
def list_runs(
    status: Annotated[Status | None, typer.Option(help="How a run stands.")] = None,
    agent: Annotated[str | None, typer.Option(help="Name of an agent.")] = None,
    framework: Annotated[str | None, typer.Option(help="Name of a framework.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="key=value, repeatable.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most runs to list.")] = 20,
    as_json: JsonOption = False,
    project: ProjectOption = Path(),
) -> None:
    """List runs, newest first."""
    arguments.labels(label)
    query = {"status": status, "agent": agent, "framework": framework, "label": label, "limit": limit}
    page = with_forge(project, lambda forge: forge.connection.get("/v1/runs", **query))
    if as_json:
        for run in page["runs"]:
            print_json(run)
        return
    table = Table("RUN", "AGENT", "FRAMEWORK", "STATUS", "TIME", "TOKENS", "CREATED")
    for run in page["runs"]:
        tokens = run["usage"]["input_tokens"] + run["usage"]["output_tokens"]
        duration = run["duration_ms"]
        seconds = f"{duration / 1000:.2f} s" if duration is not None else None
        framework_name = f"{run['framework']} {run['release']}"
        table.add(run["run_id"], run["agent"], framework_name, run["status"], seconds, tokens, run["created_at"])
    table.print()
    if page["next"]:
        say(f"there are more; `--limit` shows up to 1000 (this page: {limit})")


@app.command("show", epilog="Example: agentforge runs show r01a2b3c --json")
def show(run_id: RunArgument, as_json: JsonOption = False, project: ProjectOption = Path()) -> None:
    """Show how a run stands or ended, with its error and traceback."""
    result = with_forge(project, lambda forge: forge.connection.get(f"/v1/runs/{run_id}"))
    if as_json:
        print_json(result)
        return
    for key in ("run_id", "agent", "framework", "release", "status", "model", "thread", "created_at", "duration_ms"):
        if result[key] is not None:
            print_text(f"{key:14} {result[key]}")
    print_text(f"{'usage':14} {_pairs(result['usage'])}")
    print_text(f"{'metrics':14} {_pairs(result['metrics'])}")
    for call in result["tool_calls"]:
        print_text(f"{'tool call':14} {call['name']}({_pairs(call['arguments'])}) → {call.get('result')}")
    if result["output"] is not None:
        print_text(f"{'output':14} {result['output']}")
    if result["error"]:
        _print_error(result["error"])


@app.command("events", epilog="Example: agentforge runs events r01a2b3c --json")
def events(
    run_id: RunArgument,
    after: Annotated[int, typer.Option(min=0, help="Number of the last event seen.")] = 0,
    as_json: JsonOption = False,
    project: ProjectOption = Path(),
) -> None:
    """Print a run's events so far."""

    async def pages(forge: Any) -> None:
        position: int | None = after
        while position is not None:
            page = await forge.connection.get(f"/v1/runs/{run_id}/events", after=position)
            for event in page["events"]:
                _print_event(event, as_json)
            position = page["next"]

    with_forge(project, pages)


@app.command("watch", epilog="Example: agentforge runs watch r01a2b3c")
def watch(
    run_id: RunArgument,
    after: Annotated[int, typer.Option(min=0, help="Number of the last event seen.")] = 0,
    as_json: JsonOption = False,
    project: ProjectOption = Path(),
) -> None:
    """Print a run's events as they come, until its end; exits 1 if it fails."""

    async def follow(forge: Any) -> str:
        status = ""
        async for kind, data in forge.connection.stream("GET", f"/v1/runs/{run_id}/events", after=after):
            if kind == "result":
                status = data["status"]
            else:
                _print_event(data, as_json)
        return status

    if with_forge(project, follow) != "succeeded":
        raise typer.Exit(1)


@app.command("cancel", epilog="Example: agentforge runs cancel r01a2b3c")
def cancel(run_id: RunArgument, as_json: JsonOption = False, project: ProjectOption = Path()) -> None:
    """Cancel a run and wait for its end; a finished run stays as it is."""
    result = with_forge(project, lambda forge: forge.connection.post(f"/v1/runs/{run_id}/cancel"))
    print_json(result) if as_json else print_text(f"{run_id} {result['status']}")


def _print_event(event: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json({key: event[key] for key in ("seq", "kind", "at", "data")})
    else:
        print_text(f"{event['seq']:>5}  {event['at']}  {event['kind']:18} {_pairs(event['data'])}")


def _print_error(error: dict[str, Any]) -> None:
    print_text(f"{'error':14} {error['code']} ({error['origin']}): {error['message']}")
    if error.get("hint"):
        print_text(f"{'hint':14} {error['hint']}")
    details = error.get("details") or {}
    if details.get("traceback"):
        print_text("\n" + str(details["traceback"]).rstrip())


def _pairs(values: dict[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in values.items() if value is not None)
