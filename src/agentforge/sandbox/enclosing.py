"""What every kind of sandbox does: turn a command into one that runs behind the fence."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from agentforge.sandbox.fence import Fence

__all__ = ["Enclosed", "Inmate", "Sandbox", "homes"]


@dataclass(frozen=True, slots=True)
class Inmate:
    """A process that is to be started behind a fence."""

    command: Sequence[str]
    """Absolute path of the program and its arguments."""
    variables: Mapping[str, str]
    """Its whole environment, but for HOME, TMPDIR and what follows from them."""
    fence: Fence
    reads: tuple[Path, ...]
    """What it is started from: interpreter, environment, program. Besides what the fence says."""
    folder: Path
    """An empty folder of its own, which ends with it: for what a sandbox has to put somewhere."""
    descriptors: tuple[int, ...] = ()
    """Descriptors that it gets."""
    user: int | None = None
    """The user id, outside of the sandbox, that its processes are to have; None: whichever suits."""
    share: int | None = None
    """A descriptor that has to stay open for as long as one of its processes lives, and that it must not get."""


@dataclass(frozen=True, slots=True)
class Enclosed:
    """How to start an inmate: what goes to `subprocess`."""

    command: tuple[str, ...]
    variables: Mapping[str, str]
    folder: str | None
    """Working directory of the command that is started; None: any."""
    descriptors: tuple[int, ...]
    """Descriptors that the command has to inherit."""
    started: Callable[[], None] = field(default=lambda: None)
    """To be called once the process is started, or is not: lets go of what was opened for it."""


class Sandbox(Protocol):
    """A way to fence processes in. One object serves all of a host's workers."""

    @property
    def name(self) -> str:
        """`bubblewrap`, `none`."""
        ...

    @property
    def separate(self) -> bool:
        """Whether inmates have process ids of their own: their parent is not the host."""
        ...

    def new_user(self) -> int | None:
        """Return a user id for inmates that nobody has; None where they have the host's."""
        ...

    def owns(self, user: int) -> bool:
        """Whether a user id is one of those that `new_user` returns."""
        ...

    def enclose(self, inmate: Inmate) -> Enclosed:
        """Return how to start an inmate. Raises SandboxUnavailable, OSError."""
        ...

    def take_over(self, folder: Path, user: int | None) -> None:
        """Give a folder of the host's and all that is in it to an inmate's user, unless it is that user's."""
        ...


def homes(home: Path | str, scratch: Path | str) -> dict[str, str]:
    """Return the variables that say where a process may keep what is its own."""
    return {
        "HOME": str(home),
        "TMPDIR": str(scratch),
        "XDG_CACHE_HOME": f"{home}/.cache",
        "XDG_CONFIG_HOME": f"{home}/.config",
        "XDG_DATA_HOME": f"{home}/.local/share",
    }
