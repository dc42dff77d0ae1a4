"""A client's way to its host: found or started, and found again when it has ended."""

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from agentforge.api.connection import Connection
from agentforge.api.http import ConnectFailed
from agentforge.api.inline import InlineHost, has_inline_host
from agentforge.api.place import HostPlace, answers, host_place
from agentforge.api.starting import started_host
from agentforge.config import names_to_send
from agentforge.errors import AgentForgeError, ErrorInfo
from agentforge.errors.host import HostAlreadyRuns, HostGone, RemoteError
from agentforge.errors.runs import HostStopped
from agentforge.errors.tools import SecretMissing

__all__ = ["MOST_DEATHS", "Link"]

T = TypeVar("T")

MOST_DEATHS = 5
"""How many hosts may end under a request, without any progress in between, before it is given up."""
_LEAVE_TIMEOUT_S = 15.0
_BREAK_TIMEOUT_S = 0.5
"""How long a host may still take connections after one of its own broke."""
_log = logging.getLogger(__name__)


class Link:
    """Made and opened by `Forge`; `connection` leads to the host of the moment.

    A host that is started here is told at once to go on with the runs that an earlier one left. One that ends without
    a word (killed, crashed) is replaced, and the request repeated; one that stops in order is replaced for requests
    that it has not taken, and those who wait for a run are told (AF706).
    """

    def __init__(
        self, root: Path, *, url: str | None, background: bool, notice: Callable[[str], None] | None = None
    ) -> None:
        self.root = root
        self.connection: Connection
        self._url = url
        self._notice = notice or _log.warning
        self._alone = os.environ.get("AGENTFORGE_HOST") == "inline"
        self._background = background and not self._alone
        self._inline: InlineHost | None = None
        self._finding = asyncio.Lock()
        self._asked_for: set[str] = set()
        """Names of secrets that the host has asked for."""
        self._host: _Found

    async def open(self) -> None:
        """Find the host, or start it. Raises HostStartFailed, SocketUnusable, and what the host says is wrong."""
        if self._url is not None:
            self.connection = Connection(url=self._url)
            return
        place, is_new = await self._find_host()
        self._host = _Found.at(place)
        self.connection = Connection(socket=place.socket)
        if is_new:
            await self._resume_runs()

    async def close(self) -> None:
        """Close the connections, and leave the host if it is in this process."""
        await self.connection.close()
        if self._inline is not None:
            await asyncio.to_thread(self._inline.leave)

    def variables(self) -> dict[str, str]:
        """Return what of this process's environment goes along with a run.

        That is `config.names_to_send`, and the secrets of agents once the host has asked for them.
        """
        names = names_to_send(self.root, os.environ) | (self._asked_for & set(os.environ))
        return {name: os.environ[name] for name in names}

    async def ask_with_variables(
        self, request: Callable[[Connection, dict[str, str]], Awaitable[T]], *, repeatable: bool = True
    ) -> T:
        """Do a request that takes the variables; once more if the agent turns out to need secrets besides.

        Only the host reads agent files. For most of them that is the end of it; where one has secrets, its host refuses
        the first request and says their names.
        """
        while True:
            try:
                return await self.ask(lambda host: request(host, self.variables()), repeatable=repeatable)
            except AgentForgeError as error:
                if error.code != SecretMissing.code or not self._can_send(error.details.get("variables")):
                    raise

    def _can_send(self, names: object) -> bool:
        """Take note of the names that a host lacks; whether there are new ones to send. None go to a server."""
        found = {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()
        new = (found & set(os.environ)) - self._asked_for
        if self._url is not None or not new:
            return False
        self._asked_for |= new
        return True

    async def ask(self, request: Callable[[Connection], Awaitable[T]], *, repeatable: bool = True) -> T:
        """Do a request, with a new host if this one has ended.

        What is not `repeatable` is done again only if the host that ended can't have taken it.
        """
        deaths = _Deaths()
        while True:
            known = self._known()
            try:
                return await request(self.connection)
            except AgentForgeError as error:
                if not repeatable and not _untaken(error):
                    raise
                await self._go_on(error, known, deaths)

    async def events(self, path: str, after: int) -> AsyncGenerator[tuple[str, Any], None]:
        """Yield (kind, data) of a run's events above `after` and its `result` last, over hosts that come and go.

        Raises HostStopped's code when the host stops in order, HostGone after `MOST_DEATHS` without one more effect.
        """
        deaths = _Deaths()
        while True:
            known = self._known()
            try:
                async with aclosing(self.connection.stream("GET", path, after=after)) as items:
                    async for kind, data in items:
                        if kind == "error":
                            raise RemoteError(ErrorInfo.from_dict(data), int(data.get("exit_code", 1)))
                        if kind != "result":
                            after = data["seq"]
                            deaths.note_progress("effect" in data["data"])
                        yield kind, data
                        if kind == "result":
                            return
                raise HostGone("the host ended while it told of a run")
            except AgentForgeError as error:
                await self._go_on(error, known, deaths)

    def _known(self) -> "_Found | None":
        return None if self._url is not None else self._host

    async def _go_on(self, error: AgentForgeError, known: "_Found | None", deaths: "_Deaths") -> None:
        """Have a host again after one that ended or stops, or raise the error if it is none of that."""
        if known is None:
            raise error
        if isinstance(error, HostGone):
            deaths.count(error)
        elif error.code == HostStopped.code and "run_id" not in error.info().details:
            await known.left()
        else:
            raise error
        await self._find_again(known, died=isinstance(error, HostGone))

    async def _find_host(self) -> tuple[HostPlace, bool]:
        """Return where the project's host is, and whether it has just been started."""
        place = host_place(self.root)
        if self._background:
            return (place, False) if answers(place) else (await started_host(self.root), True)
        if has_inline_host(self.root):
            return await self._own_host(place), False
        return (place, False) if answers(place) else (await self._own_host(place), True)

    async def _own_host(self, place: HostPlace) -> HostPlace:
        """Have a host in this process and return where it is; one that has just been started elsewhere will do."""
        try:
            self._inline = await InlineHost.join(place.private() if self._alone else place)
        except HostAlreadyRuns:
            return host_place(self.root)
        return self._inline.place

    async def _find_again(self, known: "_Found", *, died: bool) -> None:
        """Have a host once more after the one that was known has left, or is about to."""
        async with self._finding:
            if self._host != known or (self._inline is not None and self._inline.usable):
                return  # another call has been here
            if self._inline is not None:
                inline, self._inline = self._inline, None
                await asyncio.to_thread(inline.leave)
            if died:
                await known.left(_BREAK_TIMEOUT_S)
            place, _ = await self._find_host()
            self._host = _Found.at(place)
            if place != known.place:
                await self.connection.close()
                self.connection = Connection(socket=place.socket)
            if self._host != known:
                if died:
                    self._notice("the host ended; going on with a new one")
                await self._resume_runs()

    async def _resume_runs(self) -> None:
        """Have the host go on with what an earlier one left, with what this process knows of keys.

        What is wrong with a run is told to who asks for that run.
        """
        with suppress(AgentForgeError):
            await self.resume_left()

    async def resume_left(self) -> dict[str, Any]:
        """Have the host go on with all that an earlier one left: {runs, lacking, variables}."""
        while True:
            answer = dict(await self.connection.post("/v1/runs/resume", {"variables": self.variables()}))
            if not self._can_send(answer.get("variables")):
                return answer


class _Deaths:
    """Counts the hosts that ended under one request."""

    def __init__(self) -> None:
        self._number = 0

    def note_progress(self, made: bool) -> None:
        if made:
            self._number = 0

    def count(self, error: AgentForgeError) -> None:
        """Count one more, or raise the error if that is too many."""
        self._number += 1
        if self._number > MOST_DEATHS:
            raise HostGone(f"{self._number} hosts ended one after the other without any progress") from error


@dataclass(frozen=True, slots=True)
class _Found:
    """A host that was found: its place, and which one of those that come and go there."""

    place: HostPlace
    socket: tuple[int, int] | None

    @classmethod
    def at(cls, place: HostPlace) -> Self:
        try:
            found = place.socket.stat()
        except FileNotFoundError:
            return cls(place, None)
        return cls(place, (found.st_ino, found.st_ctime_ns))

    async def left(self, timeout_s: float = _LEAVE_TIMEOUT_S) -> None:
        """Wait until it takes no connections any more; one that hangs is not waited for for ever."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self != _Found.at(self.place) or not answers(self.place):
                return
            await asyncio.sleep(0.05)


def _untaken(error: AgentForgeError) -> bool:
    """Whether the request that failed so can't have been taken."""
    if isinstance(error, HostGone):
        return isinstance(error.__cause__, ConnectFailed)
    return error.code == HostStopped.code
