"""What a worker is made of, and so what it may be shared for."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import msgspec

from agentforge.sandbox import Fence

__all__ = ["AdapterCode", "WorkerSpec"]


@dataclass(frozen=True, slots=True)
class AdapterCode:
    """Where the adapter's code is and which class in it to make."""

    folder: Path
    module: str
    class_name: str
    digest: str = ""


@dataclass(frozen=True)
class WorkerSpec:
    """The isolation boundary as a value: runs with equal specs may share a worker, others never do."""

    kind: Literal["agent", "tools"]
    environment: str
    """Id of the environment."""
    python: Path
    """The environment's interpreter."""
    agent_version: str
    """The agent version that the worker serves (its tools, for a tool worker)."""
    adapter: AdapterCode | None = None
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Environment variables besides the constructed ones: telemetry switches, the framework's settings, secrets."""
    secrets: tuple[str, ...] = ()
    """Names of those variables that nobody may see the value of."""
    native: bool = False
    """Whether it serves the user's own agent code, whose clients know one key a process."""
    concurrency: int = 0
    """Most runs at once in one process, within what the pool allows; 0: as many as it allows."""
    alone: str = ""
    """The one run that it is for, if it is not shared."""
    fence: Fence = field(default_factory=Fence)
    """What its processes may do."""
    user: int | None = None
    """User id, outside of the sandbox, where a host can give one; None: any that is free."""
    label: str = ""
    """Name in logs and lists."""

    @cached_property
    def key(self) -> str:
        """Equal for specs that may share a worker."""
        parts = (
            self.kind,
            self.environment,
            str(self.python),
            self.agent_version,
            (str(self.adapter.folder), self.adapter.class_name, self.adapter.digest) if self.adapter else None,
            sorted(self.variables.items()),
            self.native,
            self.concurrency,
            self.alone,
            self.fence,
            self.user,
        )
        return hashlib.sha256(msgspec.json.encode(parts, enc_hook=str)).hexdigest()[:24]
