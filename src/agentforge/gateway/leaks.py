"""Finding a key that an endpoint says in a stream piece by piece, where no single event holds it whole."""

from collections.abc import Iterator

from agentforge.gateway.types import SHORTEST_REDACTED, Json, Secret

__all__ = ["LeakWatch"]

_MOST_TEXTS = 10_000
"""So many texts of one stream may end like the beginning of a key; one that has more is none of a model."""


class LeakWatch:
    """Follows every text of one stream: `content` of each choice, arguments of each tool call and the like."""

    def __init__(self, key: Secret | None) -> None:
        value = "" if key is None else key.reveal()
        self._key = value if len(value) >= SHORTEST_REDACTED else ""
        self._tails: dict[int, str] = {}
        self.told = False
        """The key stands in a text."""

    @property
    def unsure(self) -> bool:
        """Whether a text ends with what may become the key: what is known now must wait for what comes next.

        A beginning as short as other words have gives nothing away: it does not wait.
        """
        return any(len(tail) >= SHORTEST_REDACTED for tail in self._tails.values())

    def take(self, choices: Json) -> None:
        """Take the choices of the next event. Raises ValueError where there are far too many."""
        if not self._key:
            return
        for place, text in _texts(choices, 0):
            heard = self._tails.pop(place, "") + text
            self.told = self.told or self._key in heard
            if tail := self._begun(heard):
                self._tails[place] = tail
        if len(self._tails) > _MOST_TEXTS:
            raise ValueError("too many texts")

    def _begun(self, text: str) -> str:
        """Return the longest end of a text that the key begins with."""
        longest = min(len(text), len(self._key) - 1)
        ends = (text[-length:] for length in range(longest, 0, -1) if text[-length] == self._key[0])
        return next((end for end in ends if self._key.startswith(end)), "")


def _texts(value: Json, place: int) -> Iterator[tuple[int, str]]:
    """Yield each text and where it stands. Parts of lists go by their `index`, as they do when they are joined."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from _texts(each, hash((place, name)))
    elif isinstance(value, list):
        for position, each in enumerate(value):
            index = each.get("index") if isinstance(each, dict) else None
            yield from _texts(each, hash((place, index if isinstance(index, int) else position)))
