"""`agentforge run`: one agent on one framework or on several side by side."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import typer

from agentforge.cli.arguments import input_text, labels
from agentforge.cli.env import LatestOption
from agentforge.cli.following import StreamOption, follow
from agentforge.cli.output import print_json, print_text, say
from agentforge.cli.progress import Progress
from agentforge.cli.session import JsonOption, ProjectOption
from agentforge.cli.showing import JsonShown, Shown, TextShown
from agentforge.errors import AgentForgeError, ErrorInfo, UsageFault

__all__ = ["EXAMPLE", "Ended", "run", "run_side_by_side"]

EXAMPLE = 'Example: agentforge run agent.yaml "How much was travel?" --on langchain,crewai@1 --json'

OnDivergence = Literal["wait", "continue", "stop"]


class Ended(NamedTuple):
    """How one of a command's runs ended, and what the command should end with on its account."""

    result: dict[str, Any]
    exit_code: int


def run(
    agent: Annotated[str, typer.Argument(help="Agent file, or a folder with agent.yaml.")],
    text: Annotated[str, typer.Argument(metavar="[INPUT]", help="Text, `-` for stdin, or `@file`.")] = "",
    on: Annotated[
        str | None, typer.Option("--on", help="Framework[@series|==version]; several with commas run side by side.")
    ] = None,
    latest: LatestOption = False,
    model: Annotated[str | None, typer.Option("--model", help="Model alias in place of the agent's.")] = None,
    thread: Annotated[str | None, typer.Option("--thread", help="Conversation to continue.")] = None,
    stream: StreamOption = False,
    detach: Annotated[bool, typer.Option("--detach", help="Start the run, print its id and leave.")] = False,
    label: Annotated[list[str] | None, typer.Option("--label", help="key=value, repeatable.")] = None,
    priority: Annotated[
        int, typer.Option("--priority", min=-100, max=100, help="Of runs that wait for a place the highest goes first.")
    ] = 0,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Ask the model even where a recorded answer could be used.")
    ] = False,
    on_divergence: Annotated[
        OnDivergence | None,
        typer.Option("--on-divergence", help="What to do when a run that goes on asks for something else than before."),
    ] = None,
    as_json: JsonOption = False,
    project: ProjectOption = Path(),
) -> None:
    """Run an agent and print its answer."""
    import asyncio

    frameworks: list[str | None] = [*on.split(",")] if on else [None]
    options = {
        "latest": latest,
        "model": model,
        "thread": thread,
        "stream": stream,
        "labels": labels(label),
        "priority": priority,
        "cache": False if no_cache else None,
        "on_divergence": on_divergence,
    }
    _check_framework_names(frameworks)
    if detach and os.environ.get("AGENTFORGE_HOST") == "inline":
        raise UsageFault(
            "`--detach` needs a host that outlives the command, and `AGENTFORGE_HOST` is `inline`",
            hint="Unset `AGENTFORGE_HOST`, or leave `--detach` out.",
        )
    ended = asyncio.run(_run(project, agent, input_text(text), frameworks, options, as_json=as_json, detach=detach))
    code = max((each.exit_code for each in ended), default=0)
    if code:
        raise typer.Exit(code)


async def _run(
    project: Path,
    agent: str,
    text: str,
    frameworks: list[str | None],
    options: dict[str, Any],
    *,
    as_json: bool,
    detach: bool,
) -> list[Ended]:
    from agentforge.api.client import Forge

    async with Forge(project, background=True, notice=say) as forge:
        if detach:
            for framework in frameworks:
                handle = await forge.submit(agent, text, on=framework, **options)
                print_json({"run_id": handle.run_id}) if as_json else print_text(handle.run_id)
            return []
        stream = options["stream"]
        shown = JsonShown(stream) if as_json else TextShown(stream, len(frameworks))
        return await run_side_by_side(forge, agent, text, frameworks, options, shown)


async def run_side_by_side(
    forge: Any,
    agent: str,
    text: str,
    frameworks: list[str | None],
    options: dict[str, Any],
    shown: Shown,
) -> list[Ended]:
    """Run an agent on each framework at once and show events and results as `shown` does."""
    import asyncio

    with Progress() as progress:
        shown.progress = progress
        runs = [_one(forge, agent, text, framework, options, shown, progress) for framework in frameworks]
        ended = await asyncio.gather(*runs)
    shown.end([each.result for each in ended])
    return ended


async def _one(
    forge: Any,
    agent: str,
    text: str,
    framework: str | None,
    options: dict[str, Any],
    shown: Shown,
    progress: Progress,
) -> Ended:
    import asyncio

    name = framework or "run"
    handle, exit_code = None, 1
    try:
        await prepare(forge, agent, framework, progress, latest=options.get("latest", False))
        handle = await forge.submit(agent, text, on=framework, **options)
        result = await follow(handle, name, shown, progress)
    except AgentForgeError as error:
        if handle is not None:
            raise
        result, exit_code = _never_started(agent, framework, error.info()), error.exit_code
    except asyncio.CancelledError:
        if handle is not None:
            await asyncio.shield(handle.cancel())
        raise
    progress.done(name)
    shown.result(result)
    return Ended(result, 0 if result["status"] == "succeeded" else exit_code)


async def prepare(forge: Any, agent: str, framework: str | None, progress: Progress, *, latest: bool = False) -> None:
    """Have the host build what the agent needs, showing how far it is."""
    body = {"agent": agent, "on": framework, "latest": latest, "base_dir": str(Path.cwd())}

    async def build(host: Any, variables: dict[str, str]) -> Any:
        return await progress.build(host.stream("POST", "/v1/environments", {**body, "variables": variables}))

    await forge.link.ask_with_variables(build)


def _never_started(agent: str, framework: str | None, info: ErrorInfo) -> dict[str, Any]:
    name, _, _ = (framework or "").partition("==")
    return {
        "run_id": None,
        "agent": Path(agent).stem,
        "framework": name.partition("@")[0] or None,
        "release": None,
        "status": "failed",
        "output": None,
        "tool_calls": [],
        "model_calls": 0,
        "usage": {"input_tokens": 0, "output_tokens": 0},
        "cost_usd": None,
        "duration_ms": None,
        "replayed_effects": 0,
        "sandbox": None,
        "error": info.to_dict(),
        "interrupts": [],
        "attempts": 0,
    }


def _check_framework_names(frameworks: list[str | None]) -> None:
    if any(name is not None and not name.strip() for name in frameworks):
        raise UsageFault("`--on` has an empty name", hint="Write names with commas: `--on langchain,crewai`.")
    if len(set(frameworks)) != len(frameworks):
        raise UsageFault("`--on` names a framework twice")
