"""`agentforge env remove`, `gc`, `export` and `import`: keeping environments, and moving them to other machines."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentforge.cli.output import print_json, print_text, say, say_error
from agentforge.cli.session import JsonOption, ProjectOption, with_forge
from agentforge.errors import AgentForgeError, UsageFault
from agentforge.errors.host import HostGone

if TYPE_CHECKING:
    from agentforge.api.client import Forge

__all__ = ["add_to"]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


def add_to(app: typer.Typer) -> None:
    """Add the commands to those of `env`."""
    example = "Example: agentforge env"
    app.command("remove", epilog=f"{example} remove langchain-1.4.7-py311-0a1b2c3d4e5f")(remove)
    app.command("gc", epilog=f"{example} gc --dry-run --older-than 30d")(collect)
    app.command("export", epilog=f"{example} export langchain crewai@1 tools -o environments.afenv")(export)
    app.command("import", epilog=f"{example} import environments.afenv")(import_bundle)


def remove(
    environments: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids, as `env list` shows them.")],
    as_json: JsonOption = False,
    project: ProjectOption = Path(),
) -> None:
    """Remove environments. One that a project's lock, an unfinished run or a worker uses is refused."""

    async def work(forge: "Forge") -> list[dict[str, Any] | AgentForgeError]:
        done: list[dict[str, Any] | AgentForgeError] = []
        for each in environments:
            try:
                done.append(await forge.remove_environment(each))
            except AgentForgeError as error:
                done.append(error)
        return done

    failure: AgentForgeError | None = None
    for each in with_forge(project, work):
        if isinstance(each, AgentForgeError):
            if failure is not None:
                say_error(failure)  # the last one is said by who called us
            failure = each
        elif as_json:
            print_json(each)
        else:
            say(f"removed {each['name']}: {_freed(each)}")
    if failure is not None:
        raise failure


def collect(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    older_than: Annotated[
        str | None,
        typer.Option(metavar="AGE", help="Keep what was built or used since: 30d, 12h, 2w."),
    ] = None,
    forget: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="A project that counts no more: what it uses may go. May be repeated."),
    ] = None,
    as_json: JsonOption = False,
    project: ProjectOption = Path(),
) -> None:
    """Remove the environments that no project's lock, no unfinished run and no worker uses, and what is left over."""
    age_s = _seconds(older_than) if older_than else 0.0
    found = with_forge(
        project,
        lambda forge: forge.collect_environments(dry_run=dry_run, older_than_s=age_s, forget=forget or ()),
    )
    if as_json:
        print_json(found)
        return
    for each in found["removed"]:
        print_text(f"{'would remove' if dry_run else 'removed'} {each['kind']} {each['name']}")
    for each in found["kept"]:
        say(f"kept {each['name']}: {each['reason']}")
    for each in found["forgotten"]:
        say(f"forgot the project {each}")
    say(_freed(found, "would come free" if dry_run else "came free") if found["removed"] else "nothing to remove")


def export(
    references: Annotated[
        list[str], typer.Argument(metavar="RELEASE...", help="name, name@series, name==version, or tools.")
    ],
    file: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="File to write.")],
    as_json: JsonOption = False,
    project: ProjectOption = Path(),
) -> None:
    """Write a file with the locks and all wheels of environments, for machines of this kind without an index."""

    async def work(forge: "Forge") -> dict[str, Any]:
        body = {"references": references, "file": str(file), "variables": forge.variables()}
        return await _told(forge, "/v1/environments/export", body)

    found = with_forge(project, work)
    if as_json:
        print_json(found)
        return
    for each in found["environments"]:
        say(f"{each['request']}: {each['framework']} {each['release']}".rstrip())
    print_text(f"{found['file']}  {_mib(found['size_bytes'])}")


def import_bundle(
    file: Annotated[Path, typer.Argument(help="File that `env export` wrote.")],
    no_build: Annotated[bool, typer.Option("--no-build", help="Take locks and wheels only.")] = False,
    as_json: JsonOption = False,
    project: ProjectOption = Path(),
) -> None:
    """Take a file that `env export` wrote: check it, keep its wheels, pin its requests, build without any index."""

    async def work(forge: "Forge") -> dict[str, Any]:
        return await _told(forge, "/v1/environments/import", {"file": str(file), "build": not no_build})

    for each in with_forge(project, work)["environments"]:
        if as_json:
            print_json(each)
        else:
            print_text(f"{each['request']}  {each['environment'] or each['release']}")
        if each["built"]:
            say(f"note: built from source by who exported it: {', '.join(each['built'])}")
        if not each["pinned"]:
            say(f"warning: this project pins another lock for `{each['request']}`, which stays")


async def _told(forge: "Forge", path: str, body: dict[str, Any]) -> dict[str, Any]:
    from agentforge.cli.progress import Progress

    with Progress() as progress:
        body = {**body, "base_dir": str(Path.cwd())}
        done = await progress.build(forge.connection.stream("POST", path, body))
    if not done:
        raise HostGone("the host ended before it had answered")
    return done


def _freed(found: dict[str, Any], verb: str = "came free") -> str:
    shared = found["size_bytes"] - found["freed_bytes"]
    also = f" ({_mib(shared)} more are in uv's cache or other environments too)" if shared else ""
    return f"{_mib(found['freed_bytes'])} {verb}{also}"


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text.strip())
    if found is None:
        raise UsageFault(f"`{text}` is no age", hint="Write a number and a unit: `30d`, `12h`, `2w`, `45m`.")
    return float(found[1]) * _UNITS[found[2]]
