"""Failures of the catalogue (AF2xx): references to frameworks and releases, and the manifests themselves."""

from typing import ClassVar

from agentforge.errors.tree import AgentForgeError, Origin

__all__ = [
    "CapabilityAbsent",
    "CapabilityUnknown",
    "ExampleUnknown",
    "FrameworkTwice",
    "FrameworkUnknown",
    "ManifestInvalid",
    "NotRegistered",
    "ReferenceInvalid",
    "ReleaseEnded",
    "ReleaseUnknown",
    "SeriesUnknown",
]


class ReferenceInvalid(AgentForgeError):
    """A reference to a framework that can't be read."""

    code = "AF201"
    origin: ClassVar[Origin] = "user"
    http_status = 400
    default_hint = "Write `name`, `name@series` or `name==version`, for example `langchain@1`."


class FrameworkUnknown(AgentForgeError):
    """No manifest in the catalogue has this name."""

    code = "AF202"
    origin: ClassVar[Origin] = "user"
    http_status = 404
    default_hint = "`agentforge framework list` shows the frameworks."


class SeriesUnknown(AgentForgeError):
    """The framework has no tested release in the series that was asked for."""

    code = "AF203"
    origin: ClassVar[Origin] = "user"
    http_status = 404


class ReleaseUnknown(AgentForgeError):
    """The exact release lies outside every version range that the manifest has an adapter for."""

    code = "AF204"
    origin: ClassVar[Origin] = "user"
    http_status = 404


class ManifestInvalid(AgentForgeError):
    """A `framework.toml` that can't be used; details hold `file`, `key` and `reason`."""

    code = "AF205"
    origin: ClassVar[Origin] = "adapter"
    http_status = 422


class FrameworkTwice(AgentForgeError):
    """Two manifests claim the same name."""

    code = "AF206"
    origin: ClassVar[Origin] = "adapter"
    http_status = 409
    default_hint = "Rename one of them (`name` in its framework.toml) or take its folder out of the catalogue."


class CapabilityUnknown(AgentForgeError):
    """No framework names such a capability."""

    code = "AF207"
    origin: ClassVar[Origin] = "user"
    http_status = 400


class ReleaseEnded(AgentForgeError):
    """The release was deprecated, and the last day on which it could be used is over."""

    code = "AF208"
    origin: ClassVar[Origin] = "user"
    http_status = 410


class NotRegistered(AgentForgeError):
    """There is no such registration or deprecation in this project to take back."""

    code = "AF209"
    origin: ClassVar[Origin] = "user"
    http_status = 404


class ExampleUnknown(AgentForgeError):
    """The framework has no example of this name."""

    code = "AF210"
    origin: ClassVar[Origin] = "user"
    http_status = 404


class CapabilityAbsent(AgentForgeError):
    """The agent needs something that this release of the framework does not have."""

    code = "AF211"
    origin: ClassVar[Origin] = "user"
    http_status = 422
