"""`agentforge runs checkpoints`, `diff`, `rollback`, `fork`, `replay`, `export` and `import`: a run's history."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentforge.cli import arguments
from agentforge.cli.following import DetachOption, StreamOption, follow_and_show
from agentforge.cli.output import Table, print_json, print_text, say, say_failure, shorten
from agentforge.cli.session import JsonOption, ProjectOption, with_forge
from agentforge.cli.waiting import say_waiting
from agentforge.errors import ErrorInfo, UsageFault

if TYPE_CHECKING:
    from agentforge.api.client import Forge, RunHandle

__all__ = ["RunArgument", "add_to"]

RunArgument = Annotated[str, typer.Argument(help="Id of a run, as `runs list` shows it.", callback=arguments.run_id)]
_AT_HELP = "Number of a checkpoint (-1: the beginning), or the name of a named one."
_VALUE_WIDTH = 60


def add_to(app: typer.Typer) -> None:
    """Add the commands to those of `runs`."""
    example = "Example: agentforge runs"
    app.command("checkpoints", epilog=f"{example} checkpoints r01a2b3c --show 3 --json")(checkpoints)
    app.command("diff", epilog=f"{example} diff r01a2b3c r04d5e6f")(diff)
    app.command("rollback", epilog=f"{example} rollback r01a2b3c --at 3")(rollback)
    app.command("fork", epilog=f"{example} fork r01a2b3c --at 3 --edit effect.json --on crewai")(fork)
    app.command("replay", epilog=f"{example} replay r01a2b3c --agent agent.yaml")(replay)
    app.command("export", epilog=f"{example} export r01a2b3c run.afrun")(export)
    app.command("import", epilog=f"{example} import run.afrun")(import_run)


def checkpoints(
    run_id: RunArgument,
    everything: Annotated[bool, typer.Option("--all", help="Also those of ways that the run has left.")] = False,
    number: Annotated[int | None, typer.Option("--show", help="Print one effect's request and response.")] = None,
    as_json: JsonOption = False,
    project: ProjectOption = Path(),
) -> None:
    """List a run's checkpoints: one after each finished model call, tool call and other effect."""
    if number is not None:
        effect = with_forge(project, lambda forge: forge.attach(run_id).checkpoint(number))
        print_json(effect) if as_json else _print_effect(effect)
        return
    found = with_forge(project, lambda forge: forge.attach(run_id).checkpoints(everything))
    if as_json:
        for each in found:
            print_json(each)
        return
    table = Table("CHECKPOINT", "KIND", "NAME", "TOOK", "TOKENS", "AT", *(["VOIDED"] if everything else []))
    for each in found:
        table.add(*_row(each), *(["yes" if each["voided"] else None] if everything else []))
    table.print()


def diff(
    run_id: RunArgument,
    other: Annotated[str, typer.Argument(help="Id of another run.", callback=arguments.run_id)],
    as_json: JsonOption = False,
    project: ProjectOption = Path(),
) -> None:
    """Show where two runs differ, effect by effect."""
    found = with_forge(project, lambda forge: forge.attach(run_id).diff(other))
    if as_json:
        print_json(found)
        return
    for effect in found["effects"]:
        if effect["status"] != "same":
            named = " ".join(filter(None, (effect["kind"], effect["name"])))
            print_text(f"effect {effect['effect']} ({named}): {effect['status'].replace('_', ' ')}")
            _print_changes(effect["changes"])
    if found["same"]:
        print_text(f"all {len(found['effects'])} effects are the same")
    print_text(f"the output is {'the same' if found['output_same'] else 'different'}")
    _print_changes(found["output"])


def rollback(
    run_id: RunArgument,
    at: Annotated[str, typer.Option("--at", help=_AT_HELP)],
    as_json: JsonOption = False,
    project: ProjectOption = Path(),
) -> None:
    """Take a run back to a checkpoint, where it waits for `runs resume`.

    What came after is kept and no longer used; files and what tools did to the world stay as they are.
    """

    async def work(forge: "Forge") -> dict[str, Any]:
        handle = forge.attach(run_id)
        return dict((await handle.rollback(await _number(handle, at))).raw)

    result = with_forge(project, work)
    print_json(result) if as_json else print_text(f"{run_id} {result['status']}")
    if result["status"] == "waiting":
        say_waiting(result)


def fork(
    run_id: RunArgument,
    at: Annotated[str | None, typer.Option("--at", help=f"{_AT_HELP} Default: the last one.")] = None,
    edit: Annotated[
        Path | None,
        typer.Option(
            "--edit", help="JSON file: an effect as `checkpoints --show` prints it, or the new value of `--at`."
        ),
    ] = None,
    text: Annotated[
        str | None, typer.Option("--input", help="What the user says instead: text, `-` for stdin, or `@file`.")
    ] = None,
    on: Annotated[
        str | None, typer.Option("--on", help="Framework[@series|==version] that goes on from there.")
    ] = None,
    stream: StreamOption = False,
    detach: DetachOption = False,
    as_json: JsonOption = False,
    project: ProjectOption = Path(),
) -> None:
    """Start a new run that shares this one's past up to a checkpoint, and show how it ends.

    This run stays as it is. `--edit` changes what an effect has answered: the file holds the effect with an edited
    `response`, as `runs checkpoints RUN --show N --json` prints it, or with `--at` the new value alone: of a tool
    call its result, of a model call the body of its answer.
    """
    given: dict[str, Any] = {"on": on}
    if edit is not None:
        at, given["edit"] = arguments.edited(arguments.json_file(edit), at)
    if text is not None:
        given["input"] = arguments.input_text(text)

    async def begin(forge: "Forge") -> "RunHandle":
        handle = forge.attach(run_id)
        return await handle.fork(None if at is None else await _number(handle, at), **given)

    follow_and_show(project, begin, as_json=as_json, stream=stream, detach=detach)


def replay(
    run_id: RunArgument,
    agent: Annotated[
        str | None, typer.Option("--agent", help="Agent file in place of the recorded one: is it still the same?")
    ] = None,
    as_json: JsonOption = False,
    project: ProjectOption = Path(),
) -> None:
    """Run again from what is recorded, without model and tools; exits 1 unless all is as it was."""
    found = with_forge(project, lambda forge: forge.attach(run_id).replay(agent))
    print_json(found) if as_json else _print_replay(found)
    if not found["same"]:
        raise typer.Exit(1)


def export(
    run_id: RunArgument,
    file: Annotated[Path, typer.Argument(help="File to write.")],
    project: ProjectOption = Path(),
) -> None:
    """Write a run with its journal and its agent into one file, for any machine. Keys are not in it."""

    async def work(forge: "Forge") -> None:
        try:
            await forge.attach(run_id).export(file)
        except OSError as error:
            raise UsageFault(f"`{file}` can't be written: {error.strerror}") from None

    with_forge(project, work)
    say(f"{run_id} is in {file}")


def import_run(
    file: Annotated[Path, typer.Argument(help="File that `runs export` wrote.")],
    as_json: JsonOption = False,
    project: ProjectOption = Path(),
) -> None:
    """Take a run from a file; it can then be shown, replayed, forked and resumed here."""

    async def work(forge: "Forge") -> dict[str, Any]:
        try:
            handle = await forge.import_run(file)
        except OSError as error:
            raise UsageFault(f"`{file}` can't be read: {error.strerror}") from None
        return dict((await handle.status()).raw)

    result = with_forge(project, work)
    print_json(result) if as_json else print_text(result["run_id"])
    for warning in result["warnings"]:
        say(f"warning: {warning}")
    if result["status"] == "waiting":
        say_waiting(result)


async def _number(handle: "RunHandle", at: str) -> int:
    """Return the number of a checkpoint that was given by number or by name. Raises UsageFault."""
    try:
        return int(at)
    except ValueError:
        named = [each for each in await handle.checkpoints() if each["kind"] == "checkpoint" and each["name"] == at]
    if not named:
        raise UsageFault(f"run `{handle.run_id}` has no checkpoint `{at}`", hint="`runs checkpoints RUN` lists them.")
    return int(named[-1]["effect"])


def _row(checkpoint: dict[str, Any]) -> tuple[Any, ...]:
    usage = checkpoint["usage"] or {}
    tokens = usage.get("input_tokens", 0) + usage.get("output_tokens", 0)
    took = f"{checkpoint['duration_ms'] / 1000:.2f} s"
    return checkpoint["effect"], checkpoint["kind"], checkpoint["name"], took, tokens or None, checkpoint["at"]


def _print_effect(effect: dict[str, Any]) -> None:
    print_text(f"effect {effect['effect']}: {effect['kind']} {effect['name'] or ''}".rstrip())
    for key in ("request", "response"):
        print_text(f"\n{key}:\n{json.dumps(effect[key], indent=2, ensure_ascii=False)}")


def _print_changes(changes: list[dict[str, Any]]) -> None:
    for each in changes:
        before, after = (_short(each.get(key)) for key in ("before", "after"))
        shown = {"added": f"+ {after}", "removed": f"- {before}"}.get(each["kind"], f"{before} → {after}")
        print_text(f"  {each['path']}  {shown}")


def _print_replay(found: dict[str, Any]) -> None:
    if found["same"]:
        print_text(f"same: {found['replayed']} of {found['effects']} effects were asked for again")
        return
    print_text(f"not the same: {found['replayed']} of {found['effects']} effects were asked for again")
    divergence = found["divergence"]
    if divergence:
        print_text(f"effect {divergence.get('effect')} ({divergence.get('kind')}) was asked for otherwise:")
        _print_changes(divergence.get("diff") or [])
    if found["unused"]:
        print_text(f"not asked for: effects {', '.join(map(str, found['unused']))}")
    print_text(f"the output is {'the same' if found['output_same'] else 'different'}")
    if found["error"]:
        say_failure(ErrorInfo.from_dict(found["error"]))


def _short(value: Any) -> str:
    return shorten(json.dumps(value, ensure_ascii=False), _VALUE_WIDTH)
