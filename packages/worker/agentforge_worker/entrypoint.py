"""What a native agent's entry point names: imported, made where it is a function, and looked at before it is run.

Used by adapters, in the worker. Standard library only, Python 3.8 syntax.
"""

import importlib
import inspect
from dataclasses import dataclass
from typing import Any, Awaitable, Callable

from agentforge_worker.exceptions import EffectFailed

__all__ = ["Natives", "imported", "is_maker"]

_USER_ERROR = "AF422"


@dataclass(frozen=True)
class Natives:
    """Which objects an adapter runs as native agents; all others are refused as the user's slip (AF422)."""

    kinds: str
    """In words: `an agent of pydantic-ai`."""
    takes: Callable[[Any], bool]
    """Whether an object is one of these. It raises nothing."""

    def named(self, module: str, attribute: str) -> Any:
        """Return what an entry point names: a function that makes an agent as it is, an object after a look at it.

        For adapters whose agents are made for each run, by `made` or `made_blocking`. Raises what the import raises,
        and EffectFailed.
        """
        found = imported(module, attribute)
        return found if is_maker(found) else self.checked(found, "%s:%s" % (module, attribute))

    async def made(self, found: Any) -> Any:
        """Return the object to run: what was named, or what the function that was named makes. Raises EffectFailed."""
        if not is_maker(found):
            return found
        made = self._called(found)
        return self._checked_made(await made if inspect.isawaitable(made) else made, found)

    def made_blocking(self, found: Any, wait: Callable[[Awaitable[Any]], Any]) -> Any:
        """Do as `made` in a thread that is not the loop's; `wait` is the run's."""
        if not is_maker(found):
            return found
        made = self._called(found)
        return self._checked_made(wait(made) if inspect.isawaitable(made) else made, found)

    def checked(self, found: Any, name: str) -> Any:
        """Return an object that an entry point of this name names. Raises EffectFailed if it is none to run."""
        if self.takes(found):
            return found
        raise self._refusal("the entry point `%s` names %s" % (name, _told(found)))

    def _called(self, maker: Callable[..., Any]) -> Any:
        if _needs_arguments(maker):
            raise self._refusal("the entry point `%s` names a function that needs arguments" % _name(maker))
        return maker()

    def _checked_made(self, made: Any, maker: Callable[..., Any]) -> Any:
        if self.takes(made):
            return made
        raise self._refusal("the function `%s`, which the entry point names, made %s" % (_name(maker), _told(made)))

    def _refusal(self, what: str) -> EffectFailed:
        hint = "Name %s in `native.entrypoint`, or a function without arguments that makes one." % self.kinds
        return EffectFailed(_USER_ERROR, "%s, and not %s" % (what, self.kinds), hint, "user")


def imported(module: str, attribute: str) -> Any:
    """Return what an entry point names. Raises what the import raises; AttributeError if it is not there."""
    found: Any = importlib.import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    return found


def is_maker(found: Any) -> bool:
    """Whether it is a function: what makes an agent, not an agent."""
    return inspect.isroutine(found)


def _needs_arguments(maker: Callable[..., Any]) -> bool:
    try:
        inspect.signature(maker).bind()
    except TypeError:
        return True
    except ValueError:  # a function in C that does not say
        return False
    return False


def _told(found: Any) -> str:
    if inspect.isclass(found):
        return "the class `%s`" % found.__name__
    if is_maker(found):
        return "a function"
    return "a value of type `%s`" % type(found).__name__


def _name(maker: Callable[..., Any]) -> str:
    return "%s:%s" % (getattr(maker, "__module__", None) or "?", getattr(maker, "__qualname__", repr(maker)))
