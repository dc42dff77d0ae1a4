"""What an environment really holds, asked of its own interpreter."""

import asyncio
import json
from asyncio.subprocess import DEVNULL, PIPE

from agentforge.environments.environment import Environment, EnvironmentRequest
from agentforge.errors.environments import InstallFailed, WrongVersion
from agentforge.frameworks import is_release

__all__ = ["installed", "verify"]

_ASK = """
import json, platform, sys
from importlib.metadata import PackageNotFoundError, version
name = sys.argv[1]
try:
    found = version(name) if name else None
except PackageNotFoundError:
    found = None
print(json.dumps([platform.python_version(), found]))
"""


async def verify(candidate: Environment, request: EnvironmentRequest) -> str:
    """Return the interpreter's exact version if the release is the requested one. Raises WrongVersion."""
    python, found = await installed(candidate, request.distribution)
    if request.release is None:
        return python
    what = request.distribution or "Python"
    found = found if request.distribution else python
    if found is None or not is_release(found, request.release, request.distribution):
        has = f"has {found}" if found else "does not have it"
        raise WrongVersion(f"`{candidate.id}` must have `{what}` {request.release}, but {has}")
    return python


async def installed(candidate: Environment, distribution: str) -> tuple[str, str | None]:
    """Return the interpreter's exact version, and that of a package if it has it. Raises InstallFailed."""
    process = await asyncio.create_subprocess_exec(
        candidate.python, "-I", "-c", _ASK, distribution, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env={}, cwd="/"
    )
    try:
        out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        text = err.decode(errors="replace").strip()
        raise InstallFailed(f"The interpreter of `{candidate.id}` does not start: {text}")
    python, found = json.loads(out)
    return python, found
