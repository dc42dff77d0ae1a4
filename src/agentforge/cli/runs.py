"""`agentforge runs`: what ran, what is running, what waits, and having it go on."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from agentforge.cli import arguments, run_history
from agentforge.cli.following import DetachOption, StreamOption, follow_and_show
from agentforge.cli.output import Table, pairs, print_json, print_text, say
from agentforge.cli.run_history import RunArgument
from agentforge.cli.session import JsonOption, ProjectOption, with_forge
from agentforge.cli.waiting import say_waiting, what_to_type
from agentforge.errors import UsageFault

if TYPE_CHECKING:
    from agentforge.api.client import Forge, RunHandle

__all__ = ["app"]

app = typer.Typer(
    help="Runs: list, show, watch, cancel, resume, answer, fork, replay.", no_args_is_help=True, rich_markup_mode=None
)
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
    """List runs, newest first; of those that wait, what for."""
    arguments.labels(label)
    query = {"status": status, "agent": agent, "framework": framework, "label": label, "limit": limit}
    page = with_forge(project, lambda forge: forge.connection.get("/v1/runs", **query))
    if as_json:
        for run in page["runs"]:
            print_json(run)
        return
    waits = any(run["interrupts"] for run in page["runs"])
    table = Table("RUN", "AGENT", "FRAMEWORK", "STATUS", "TIME", "TOKENS", "CREATED", *(["WAITS FOR"] if waits else []))
    for run in page["runs"]:
        table.add(*_row(run), *([_waits_for(run)] if waits else []))
    table.print()
    if page["next"]:
        say(f"there are more; `--limit` shows up to 1000 (this page: {limit})")


@app.command("show", epilog="Example: agentforge runs show r01a2b3c --json")
def show(run_id: RunArgument, as_json: JsonOption = False, project: ProjectOption = Path()) -> None:
    """Show how a run stands or ended: what it waits for, its error and traceback."""
    result = with_forge(project, lambda forge: forge.connection.get(f"/v1/runs/{run_id}"))
    if as_json:
        print_json(result)
        return
    for key in ("run_id", "agent", "framework", "release", "status", "model", "thread", "created_at", "duration_ms"):
        _print_line(key, result[key])
    if result["forked_from"]:
        _print_line("forked from", f"{result['forked_from']['run_id']} at effect {result['forked_from']['effect']}")
    _print_line("attempts", result["attempts"])
    _print_line("replayed", result["replayed_effects"] or None)
    _print_line("usage", pairs(result["usage"]))
    _print_line("metrics", pairs(result["metrics"]))
    for call in result["tool_calls"]:
        _print_line("tool call", f"{call['name']}({pairs(call['arguments'])}) → {call.get('result')}")
    for interrupt in result["interrupts"]:
        _print_line("waits for", f"{interrupt['kind']} {interrupt['id']}: {interrupt['message']}")
        _print_line("to answer", what_to_type(run_id, interrupt, several=len(result["interrupts"]) > 1))
    _print_line("output", result["output"])
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

    async def pages(forge: "Forge") -> None:
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
    """Print a run's events as they come, until it ends or waits; exits 1 unless it succeeds."""

    async def follow(forge: "Forge") -> dict[str, Any]:
        result: dict[str, Any] = {}
        async for kind, data in forge.link.events(f"/v1/runs/{run_id}/events", after):
            if kind == "result":
                result = data
            else:
                _print_event(data, as_json)
        return result

    result = with_forge(project, follow)
    if result["status"] == "waiting":
        say_waiting(result)
    if result["status"] != "succeeded":
        raise typer.Exit(1)


@app.command("cancel", epilog="Example: agentforge runs cancel r01a2b3c")
def cancel(run_id: RunArgument, as_json: JsonOption = False, project: ProjectOption = Path()) -> None:
    """Cancel a run and wait for its end; a finished run stays as it is."""
    result = with_forge(project, lambda forge: forge.connection.post(f"/v1/runs/{run_id}/cancel"))
    print_json(result) if as_json else print_text(f"{run_id} {result['status']}")


@app.command("resume", epilog="Example: agentforge runs resume --all")
def resume(
    run_id: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Id of a run.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Go on with all runs that a killed host left.")] = False,
    stream: StreamOption = False,
    detach: DetachOption = False,
    as_json: JsonOption = False,
    project: ProjectOption = Path(),
) -> None:
    """Go on with a run that was left, failed, was rolled back or imported, and show how it ends.

    What is recorded of it is not done again.
    """
    if everything == (run_id is not None):
        raise UsageFault("`runs resume` takes the id of a run, or `--all`")
    if run_id is None:
        from agentforge.cli.resuming import resume_all

        resume_all(project, as_json=as_json, detach=detach)
        return
    known = arguments.run_id(run_id)

    async def begin(forge: "Forge") -> "RunHandle":
        handle = forge.attach(known)
        await handle.resume()
        return handle

    follow_and_show(project, begin, as_json=as_json, stream=stream, detach=detach, goes_on=known)


@app.command("answer", epilog="Example: agentforge runs answer r01a2b3c approve")
def answer(
    run_id: RunArgument,
    decision: Annotated[
        str, typer.Argument(help="One of the decisions that `runs show` names; to a question, itself.")
    ],
    value: Annotated[
        str | None, typer.Argument(metavar="[VALUE]", help="Result as JSON, or reason; text, `-` or `@file`.")
    ] = None,
    interrupt: Annotated[
        str | None, typer.Option("--interrupt", help="Id of it, if the run waits for several.")
    ] = None,
    stream: StreamOption = False,
    detach: DetachOption = False,
    as_json: JsonOption = False,
    project: ProjectOption = Path(),
) -> None:
    """Answer what a run waits for, and show how it goes on.

    An approval takes `approve` or `reject [REASON]`; a tool call that was in flight at a crash `retry`, `result JSON`
    or `fail`; a divergence `continue` or `fail`; a question its answer, as JSON if it asks for something else than
    text.
    """
    given = None if value is None else arguments.input_text(value)

    async def begin(forge: "Forge") -> "RunHandle":
        handle = forge.attach(run_id)
        found = arguments.open_interrupt((await handle.status()).raw, interrupt)
        if found is None:
            await handle.answer(decision, given, interrupt)  # the host says why not
        else:
            what, content = arguments.answer(found, decision, given)
            await handle.answer(what, content, found["id"])
        return handle

    follow_and_show(project, begin, as_json=as_json, stream=stream, detach=detach, goes_on=run_id)


run_history.add_to(app)


def _row(run: dict[str, Any]) -> tuple[Any, ...]:
    tokens = run["usage"]["input_tokens"] + run["usage"]["output_tokens"]
    duration = run["duration_ms"]
    seconds = f"{duration / 1000:.2f} s" if duration is not None else None
    framework = f"{run['framework']} {run['release']}"
    return run["run_id"], run["agent"], framework, run["status"], seconds, tokens, run["created_at"]


def _waits_for(run: dict[str, Any]) -> str:
    return "; ".join(f"{each['kind']}: {each['message']}" for each in run["interrupts"])


def _print_event(event: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json({key: event[key] for key in ("seq", "kind", "at", "data")})
    else:
        print_text(f"{event['seq']:>5}  {event['at']}  {event['kind']:18} {pairs(event['data'])}")


def _print_line(name: str, value: object) -> None:
    if value is not None:
        print_text(f"{name:14} {value}")


def _print_error(error: dict[str, Any]) -> None:
    _print_line("error", f"{error['code']} ({error['origin']}): {error['message']}")
    if error.get("hint"):
        _print_line("hint", error["hint"])
    details = error.get("details") or {}
    if details.get("traceback"):
        print_text("\n" + str(details["traceback"]).rstrip())
