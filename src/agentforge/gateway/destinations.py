"""Where a connection goes, as `host:port`, and the list of those that an agent's `network` allows."""

import itertools
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass

from agentforge.gateway.addresses import IPAddress, parse_address

__all__ = ["Allowed", "Destination", "parse_destination"]

_log = logging.getLogger(__name__)

_HOST_PORT = re.compile(r"(?:\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:]+)):(?P<port>[0-9]{1,5})")
_NAMED = 10
"""Entries that a message shows of a list."""
_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9._-]{0,251}[a-z0-9_])?")


@dataclass(frozen=True, slots=True)
class Destination:
    """A host and a port, in the one form in which they are compared, resolved and reported."""

    host: str
    """A name in lower-case ASCII without its last dot, or an address without brackets."""
    port: int

    @property
    def address(self) -> IPAddress | None:
        """The host as an address, None if it is a name."""
        return parse_address(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_destination(text: str) -> Destination:
    """Read `host:port`, in any case, with a last dot, or in other letters than ASCII. Raises ValueError."""
    found = _HOST_PORT.fullmatch(text)
    if found is None or not 0 < int(found["port"]) < 65536:
        raise ValueError("it is not `host:port`")
    return Destination(_host(found["name"] or f"[{found['address']}]"), int(found["port"]))


def _host(text: str) -> str:
    if text.startswith("["):
        address = parse_address(text[1:-1])
        if address is None or ":" not in text:
            raise ValueError("there is no IPv6 address in the brackets")
        return str(address)
    if not text.isascii():
        try:
            text = text.encode("idna").decode("ascii")
        except UnicodeError:
            raise ValueError("it has a host that can't be a name") from None
    name = text.lower().removesuffix(".")
    if not _NAME.fullmatch(name):
        raise ValueError("it has a host that can't be a name")
    address = parse_address(name)
    return name if address is None else str(address)


class Allowed:
    """What an agent's `network` lists."""

    def __init__(self, listed: Iterable[str]) -> None:
        """An entry that can't be a destination allows nothing; the agent file's schema lets few of them through."""
        self._destinations: dict[Destination, None] = {}
        for entry in listed:
            try:
                self._destinations[parse_destination(entry)] = None
            except ValueError as error:
                _log.warning("`network` lists `%s`, which nothing can reach: %s", entry, error)

    def __contains__(self, destination: Destination) -> bool:
        return destination in self._destinations

    def names(self, address: IPAddress, port: int) -> bool:
        """Whether it lists this very address with this port."""
        return Destination(str(address), port) in self._destinations

    def __str__(self) -> str:
        named = [f"`{destination}`" for destination in itertools.islice(self._destinations, _NAMED)]
        more = len(self._destinations) - len(named)
        return ", ".join(named) + (f" and {more} more" if more else "") or "nothing"
