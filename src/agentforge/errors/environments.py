"""Failures of environments (AF3xx): resolving, building, checking and keeping them, and the project's lock."""

from typing import ClassVar

from agentforge.errors.tree import AgentForgeError, Origin

__all__ = [
    "CheckFailed",
    "DiskFull",
    "EnvironmentInUse",
    "EnvironmentUnknown",
    "HomeNotWritable",
    "IndexUnreachable",
    "InstallFailed",
    "InterpreterMissing",
    "LockInvalid",
    "LockUnavailable",
    "ProjectLockInvalid",
    "ReleaseNotInIndex",
    "RequirementInvalid",
    "ResolutionFailed",
    "UploadTimesMissing",
    "UvMissing",
    "WrongVersion",
]


class UvMissing(AgentForgeError):
    """The `uv` program, which resolves and installs, can't be started."""

    code = "AF301"
    default_hint = "Install it into AgentForge's own environment: `pip install uv`."


class ResolutionFailed(AgentForgeError):
    """No set of packages satisfies the requirements; the message holds uv's explanation."""

    code = "AF302"
    origin: ClassVar[Origin] = "user"
    http_status = 422
    default_hint = "Loosen one of the pins named above, or ask for another release."


class IndexUnreachable(AgentForgeError):
    """The package index did not answer, or not usefully."""

    code = "AF303"
    http_status = 502
    default_hint = (
        "Check the network; another index is set with `UV_DEFAULT_INDEX=URL` or `index-url` in pip's configuration."
    )


class UploadTimesMissing(AgentForgeError):
    """The index does not say when files were uploaded, so nothing can be resolved as of a release's own time."""

    code = "AF304"
    http_status = 422
    default_hint = (
        "Ask for a tested release (they ship their locks), or use an index whose JSON API has upload times (PEP 700)."
    )


class ReleaseNotInIndex(AgentForgeError):
    """The index has no such version of the package."""

    code = "AF305"
    origin: ClassVar[Origin] = "user"
    http_status = 404


class InterpreterMissing(AgentForgeError):
    """No Python on this machine is in the range that the release needs."""

    code = "AF306"
    http_status = 422


class InstallFailed(AgentForgeError):
    """The packages of a lock could not be installed (hash mismatch, no wheel and a failing build, ...)."""

    code = "AF307"
    default_hint = "The message is uv's own; a later attempt starts afresh."


class WrongVersion(AgentForgeError):
    """The installed version is not the one that was asked for."""

    code = "AF308"
    default_hint = "The lock does not hold this release. Please report it; another release may work."


class CheckFailed(AgentForgeError):
    """The freshly built environment did not pass its check and was thrown away."""

    code = "AF309"
    origin: ClassVar[Origin] = "framework"
    default_hint = "Details hold the native traceback. Extra `requirements` of the agent are a frequent cause."


class HomeNotWritable(AgentForgeError):
    """The folder for environments can't be written."""

    code = "AF310"
    default_hint = "Make the folder writable, or choose another with `AGENTFORGE_HOME=DIR`."


class DiskFull(AgentForgeError):
    """The disk is full."""

    code = "AF311"
    http_status = 507
    default_hint = "Free some space: `agentforge env list` shows sizes, `agentforge env remove ID` deletes one."


class EnvironmentInUse(AgentForgeError):
    """A process uses the environment, so it can't be removed."""

    code = "AF312"
    origin: ClassVar[Origin] = "user"
    http_status = 409
    default_hint = "Let the runs end, or stop the hosts that use it (`agentforge host stop`), then try again."


class EnvironmentUnknown(AgentForgeError):
    """No built environment has this id."""

    code = "AF313"
    origin: ClassVar[Origin] = "user"
    http_status = 404
    default_hint = "`agentforge env list` shows the built environments."


class ProjectLockInvalid(AgentForgeError):
    """The project's `agentforge.lock` can't be used."""

    code = "AF314"
    origin: ClassVar[Origin] = "user"
    http_status = 422
    default_hint = "Restore the file from version control, or delete it to have it made anew."


class RequirementInvalid(AgentForgeError):
    """A requirement line of an agent or a project that can't be used."""

    code = "AF315"
    origin: ClassVar[Origin] = "user"
    http_status = 400
    default_hint = "Write a name with an optional version range, for example `pandas>=2,<3`."


class LockUnavailable(AgentForgeError):
    """The project pins a lock whose text is nowhere to be found any more."""

    code = "AF316"
    origin: ClassVar[Origin] = "user"
    http_status = 409


class LockInvalid(AgentForgeError):
    """A lock that does not hold what it must: another version, a line without hashes, an address."""

    code = "AF317"
