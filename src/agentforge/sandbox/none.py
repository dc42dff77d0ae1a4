"""No sandbox: a process like any other of the host's user."""

from pathlib import Path

from agentforge.sandbox.enclosing import Enclosed, Inmate, homes
from agentforge.sandbox.resources import limited

__all__ = ["NoSandbox"]


class NoSandbox:
    """Starts inmates as they are, with a HOME and a temporary folder of their own."""

    name = "none"
    separate = False

    def new_user(self) -> int | None:
        """Return None: there are no users but the host's own."""
        return None

    def owns(self, user: int) -> bool:
        """Return False."""
        return False

    def enclose(self, inmate: Inmate) -> Enclosed:
        """Return how to start an inmate."""
        home, scratch = inmate.folder / "home", inmate.folder / "tmp"
        for path in (home, scratch):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        share = () if inmate.share is None else (inmate.share,)
        return Enclosed(
            command=(*limited(inmate.fence.limits, backstop=True, own_user=False), *inmate.command),
            variables={**homes(home, scratch), **inmate.variables},
            folder=str(scratch),
            descriptors=(*inmate.descriptors, *share),
        )

    def take_over(self, folder: Path, user: int | None) -> None:
        """Do nothing: everything is the host's user's."""
