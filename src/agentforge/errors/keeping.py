"""Failures of keeping environments (AF330 to AF339): removing, collecting, building packages, bundles."""

from typing import ClassVar

from agentforge.errors.tree import AgentForgeError, Origin

__all__ = [
    "BundleInvalid",
    "BundleNotWritten",
    "BundleTooNew",
    "BundleUnfit",
    "EnvironmentNeeded",
    "PackageBuildFailed",
    "PackageFileMissing",
    "ProjectUnreadable",
]


class EnvironmentNeeded(AgentForgeError):
    """A project's lock or an unfinished run needs the environment, so it isn't removed."""

    code = "AF330"
    origin: ClassVar[Origin] = "user"
    http_status = 409
    default_hint = (
        "Let the runs end, or take the entry out of that `agentforge.lock`; a project that counts no more is "
        "forgotten with `agentforge env gc --forget DIR`."
    )


class ProjectUnreadable(AgentForgeError):
    """What a registered project uses can't be read, so nobody knows what may be removed."""

    code = "AF331"
    origin: ClassVar[Origin] = "user"
    http_status = 409


class BundleInvalid(AgentForgeError):
    """The file is no bundle of environments, or a damaged one."""

    code = "AF332"
    origin: ClassVar[Origin] = "user"
    http_status = 422
    default_hint = "Nothing was taken from it. Copy the file again, or export it anew with `agentforge env export`."


class BundleTooNew(AgentForgeError):
    """The bundle was written in a later version of the format."""

    code = "AF333"
    origin: ClassVar[Origin] = "user"
    http_status = 422
    default_hint = "Update AgentForge: `pip install --upgrade inferloop-agentforge`."


class BundleUnfit(AgentForgeError):
    """The bundle is for another Python or another platform than this machine's."""

    code = "AF334"
    origin: ClassVar[Origin] = "user"
    http_status = 422


class PackageFileMissing(AgentForgeError):
    """No index has a file of a package with the hash that the lock names, and that fits this machine."""

    code = "AF335"
    http_status = 404
    default_hint = (
        "A newer lock may help (`agentforge env update`); a local package must have been built on this machine."
    )


class PackageBuildFailed(AgentForgeError):
    """A package of the index has no wheel that fits, and building it from its source failed."""

    code = "AF337"
    origin: ClassVar[Origin] = "framework"
    http_status = 422
    default_hint = (
        "Install what its build needs (a compiler, headers), pin a version that has a wheel, or ask for another "
        "release. `pip wheel --no-deps PACKAGE` shows all that the build says."
    )


class BundleNotWritten(AgentForgeError):
    """The file for the bundle can't be written."""

    code = "AF336"
    origin: ClassVar[Origin] = "user"
    http_status = 422
    default_hint = "Choose a file in a folder that can be written and has room."
