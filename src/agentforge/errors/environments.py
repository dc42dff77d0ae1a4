"""Failures of environments (AF3xx): resolving, building, checking and keeping them, and the project's lock."""

from typing import ClassVar

from agentforge.errors.tree import AgentForgeError, Origin

__all__ = [
    "CheckFailed",
    "DiskFull",
    "EnvironmentBroken",
    "EnvironmentGone",
    "EnvironmentInUse",
    "EnvironmentUnknown",
    "GenerationUnknown",
    "HomeNotWritable",
    "IndexUnreachable",
    "InstallFailed",
    "InterpreterMissing",
    "LocalPackageFailed",
    "LockInvalid",
    "LockUnavailable",
    "PinMoved",
    "ProbeFailed",
    "ProjectLockInvalid",
    "ProjectNotWritable",
    "RebuildImpossible",
    "ReleaseNotInIndex",
    "RequestAmbiguous",
    "RequestUnknown",
    "RequirementInvalid",
    "ResolutionFailed",
    "RunsDiffer",
    "SmokeFailed",
    "UploadTimesMissing",
    "UvMissing",
    "VersionNotAdmitted",
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
    default_hint = "Free some space: `agentforge env gc` removes the environments that no project needs."


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


class LocalPackageFailed(AgentForgeError):
    """A local package that an agent or a project requires could not be built; the message holds what the build said."""

    code = "AF318"
    origin: ClassVar[Origin] = "user"
    http_status = 422
    default_hint = "Build it by hand to see more: `uv build --wheel FOLDER`."


class RequestUnknown(AgentForgeError):
    """The project's `agentforge.lock` has no such request."""

    code = "AF320"
    origin: ClassVar[Origin] = "user"
    http_status = 404
    default_hint = "`agentforge env list` shows the project's requests."


class VersionNotAdmitted(AgentForgeError):
    """The version that an update was to go to is not what the request asks for."""

    code = "AF321"
    origin: ClassVar[Origin] = "user"
    http_status = 400


class GenerationUnknown(AgentForgeError):
    """A request of the project has no such generation."""

    code = "AF322"
    origin: ClassVar[Origin] = "user"
    http_status = 404


class EnvironmentGone(AgentForgeError):
    """The environment of the generation that was to be active again is not built any more."""

    code = "AF323"
    origin: ClassVar[Origin] = "user"
    http_status = 409
    default_hint = "Repeat the command with `--build` to have it built again first."


class SmokeFailed(AgentForgeError):
    """A scripted scenario went wrong in the environment that was to take the place of the present one."""

    code = "AF324"
    origin: ClassVar[Origin] = "adapter"
    http_status = 422
    default_hint = "The old generation stays. Another release may work: `agentforge env update REQUEST --to VERSION`."


class RunsDiffer(AgentForgeError):
    """Recorded runs of the project did something else in the environment that was to take the present one's place."""

    code = "AF325"
    origin: ClassVar[Origin] = "framework"
    http_status = 422
    default_hint = (
        "The old generation stays. `agentforge runs events RUN` shows what the run did; with `--runs 0` no run counts."
    )


class RequestAmbiguous(AgentForgeError):
    """The request is in the project's lock more than once, each time with other additional packages."""

    code = "AF326"
    origin: ClassVar[Origin] = "user"
    http_status = 409


class PinMoved(AgentForgeError):
    """What a request means in the project was changed while an update of it was tried."""

    code = "AF327"
    origin: ClassVar[Origin] = "user"
    http_status = 409
    default_hint = "Start the update again."


class ProjectNotWritable(AgentForgeError):
    """The project's `agentforge.lock` can't be written."""

    code = "AF328"
    origin: ClassVar[Origin] = "user"
    http_status = 409
    default_hint = (
        "Give your user the right to write the project's folder and the file; where nobody may write, name requests "
        "that the file already has."
    )


class EnvironmentBroken(AgentForgeError):
    """A built environment is not what was built any more: files are missing or were changed, or its interpreter is."""

    code = "AF350"
    http_status = 409
    default_hint = "`agentforge env build --rebuild ID` makes it anew; runs under way are not disturbed."


class ProbeFailed(AgentForgeError):
    """An environment could not be probed, for a reason that says nothing of the environment."""

    code = "AF351"
    default_hint = "`agentforge doctor` shows what is wrong with this machine; the state stays what it was."


class RebuildImpossible(AgentForgeError):
    """What an environment was built from is not known any more, so it can't be made anew by its id."""

    code = "AF352"
    origin: ClassVar[Origin] = "user"
    http_status = 422
    default_hint = "Name the release instead: `agentforge env build --rebuild langchain`."
