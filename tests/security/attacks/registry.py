"""What an attack is, and the list of all."""

import re
from typing import Any, Callable, Dict, Optional, Union

__all__ = ["ATTACKS", "MARK", "Attack", "Blocked", "World", "attack", "canary_in"]

MARK = "af-was-here"
"""What an attack writes where it must not write."""
_CANARY = re.compile(rb"canary-[a-z-]+-[0-9a-f]{24}")
Evidence = Union[None, str, bytes]


class Blocked(Exception):
    """Raised by an attack that sees that it can't go on."""


class World(Dict[str, Any]):
    """Where the targets are: paths, ports, process ids. No secrets."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise Blocked("there is no %s here" % name) from None


class Attack:
    """One thing that is tried. `run` returns evidence if it worked; it raises, or returns nothing, if it did not."""

    def __init__(self, run: Callable[[World], Evidence], kind: str, stops: str, **options: Any) -> None:
        self.run = run
        self.name = run.__name__.replace("_", "-")
        self.what = (run.__doc__ or "").strip().split("\n")[0]
        self.kind = kind
        """`sandbox`: shown to work without one. `limit`: a limit holds it, shown to work with a higher one. `host`: the
        host's own rules, at every level. `kernel`: refused anyway, sandbox or not."""
        self.stops = stops
        """What stops it, in words for the documentation."""
        self.who = str(options.pop("who", "anyone"))
        """Whose host could do it without a sandbox: `root`, `user` or `anyone`; the kernel refuses the others."""
        self.canary = str(options.pop("canary", ""))
        """The canary that the evidence must hold."""
        self.changes = str(options.pop("changes", ""))
        """The target that must have changed, whatever the attack says of itself."""
        self.optional = bool(options.pop("optional", False))
        """Whether some kernels do not have what it needs: then they refuse it anyway."""
        self.inside = bool(options.pop("inside", False))
        """Whether it runs in the worker's own process, not in a fork of it."""
        self.alone = bool(options.pop("alone", False))
        """Whether it gets a run of its own, which it may well end."""
        self.limits = dict(options.pop("limits", {}))
        """What the agent file of that run says under `limits`."""
        self.fenced_only = bool(options.pop("fenced_only", False))
        """Whether the host stops it in a sandbox only: at `none` it depends on the machine."""
        self.early = str(options.pop("early", ""))
        """What a package of the environment does at the handshake, before it: see `agents/early.py`."""
        self.judge = str(options.pop("judge", ""))
        """What the host's side looks at afterwards, see `judges.py`."""
        self.timeout_s = float(options.pop("timeout_s", 5.0))
        if options:
            raise TypeError("an attack has no %s" % sorted(options))

    def __repr__(self) -> str:
        return "Attack(%s)" % self.name


ATTACKS: Dict[str, Attack] = {}


def attack(
    kind: str, stops: str, **options: Any
) -> Callable[[Callable[[World], Evidence]], Callable[[World], Evidence]]:
    """Put a function on the list."""

    def add(run: Callable[[World], Evidence]) -> Callable[[World], Evidence]:
        made = Attack(run, kind, stops, **options)
        if made.name in ATTACKS:
            raise ValueError("there are two attacks %s" % made.name)
        ATTACKS[made.name] = made
        return run

    return add


def canary_in(data: Union[str, bytes]) -> Optional[bytes]:
    """Return the first canary in what was read."""
    found = _CANARY.search(data.encode("utf-8", "replace") if isinstance(data, str) else data)
    return found.group() if found else None
