"""A client whose host ends again and again: it goes on where it was, and gives up where nothing moves."""

import json
import socketserver
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from agentforge.api import link
from agentforge.api.client import Forge
from agentforge.api.place import host_place
from agentforge.api.result import RunEvent
from agentforge.errors import AgentForgeError

pytestmark = pytest.mark.feature("AF-081")

RESULT = {
    "run_id": "r1", "agent": "a", "framework": "python", "release": "1", "status": "succeeded", "output": "done",
    "tool_calls": [], "model_calls": 0, "usage": {}, "cost_usd": None, "duration_ms": 1, "error": None,
}  # fmt: skip
PROBE = "GET /v1/host "
"""Begins what a client asks to find out whether a host answers."""
Answer = Callable[[int, str], str]
"""What a host says to its n-th request, by its path: a response, which may be cut off."""


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sockets in a short folder of the test's own, and no patience with a host whose connection broke."""
    monkeypatch.setattr(link, "_BREAK_TIMEOUT_S", 0)
    with tempfile.TemporaryDirectory(prefix="af-", dir="/tmp") as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        yield


@asynccontextmanager
async def host(root: Path, answer: Answer) -> AsyncIterator[list[str]]:
    """A host that says what the test wants and then breaks the connection; yields the heads of what was asked.

    In a thread of its own, as clients look for a host without waiting for their loop.
    """
    asked: list[str] = []

    class Connected(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            head = self.request.recv(65536).decode()
            if head.startswith(PROBE):
                self.request.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            elif head:
                asked.append(head)
                self.request.sendall(answer(len(asked), head.split(" ")[1]).encode())

    place = host_place(root)
    place.lock.parent.mkdir(parents=True)
    place.lock.touch()
    with socketserver.ThreadingUnixStreamServer(str(place.socket), Connected) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield asked
        finally:
            server.shutdown()
            thread.join()


def stream(*events: tuple[str, object]) -> str:
    body = "".join(f"event: {kind}\ndata: {json.dumps(data)}\n\n" for kind, data in events)
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return f"{head}{len(body):x}\r\n{body}\r\n"  # and no last chunk: it is cut off


def event(seq: int, **data: object) -> tuple[str, object]:
    return "model.responded", {"seq": seq, "kind": "model.responded", "at": "", "attempt": 1, "data": data}


async def test_a_watcher_goes_on_after_the_last_event_it_saw_while_there_is_progress(tmp_path: Path) -> None:
    def answer(number: int, path: str) -> str:
        after = int(parse_qs(urlsplit(path).query)["after"][0])
        return stream(event(after + 1, effect=after)) if after < 12 else stream(("result", RESULT))

    async with host(tmp_path, answer), Forge(tmp_path) as forge:
        items = [item async for item in forge.attach("r1").watch()]
    assert [item.seq for item in items if isinstance(item, RunEvent)] == list(range(1, 13))
    assert items[-1].raw == RESULT  # type: ignore[union-attr]


async def test_who_waits_for_a_result_goes_on_while_there_is_progress(tmp_path: Path) -> None:
    def answer(number: int, path: str) -> str:
        after = parse_qs(urlsplit(path).query).get("after")
        if after is None:
            return ""
        return stream(event(int(after[0]) + 1, effect=0)) if int(after[0]) < 12 else stream(("result", RESULT))

    async with host(tmp_path, answer) as asked, Forge(tmp_path) as forge:
        assert (await forge.attach("r1").result()).output == "done"
        assert len(asked) == 14


async def test_a_watcher_gives_up_after_five_hosts_without_one_more_effect(tmp_path: Path) -> None:
    def answer(number: int, path: str) -> str:
        return stream(event(number))  # an event, and no effect

    async with host(tmp_path, answer) as asked, Forge(tmp_path) as forge:
        with pytest.raises(AgentForgeError) as raised:
            async for _ in forge.attach("r1").watch():
                pass
        assert raised.value.code == "AF904"
        assert len(asked) == link.MOST_DEATHS + 1


async def test_a_run_is_sent_again_under_the_same_key_and_a_rollback_is_not(tmp_path: Path) -> None:
    def answer(number: int, path: str) -> str:
        body = json.dumps(RESULT)
        head = f"HTTP/1.1 201 Created\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        return head + body if number == 3 else ""

    async with host(tmp_path, answer) as asked, Forge(tmp_path) as forge:
        assert (await forge.run("agent.yaml", "x")).output == "done"
        keys = {line for head in asked for line in head.splitlines() if line.lower().startswith("idempotency-key")}
        assert (len(asked), len(keys)) == (3, 1)
        with pytest.raises(AgentForgeError) as raised:
            await forge.attach("r1").rollback(1)
        assert raised.value.code == "AF904"
        assert len(asked) == 4


async def test_a_host_that_stops_is_told_of_and_not_started_again(tmp_path: Path) -> None:
    problem = {"code": "AF706", "message": "the host stops", "details": {"run_id": "r1"}, "exit_code": 1}

    async with host(tmp_path, lambda *_: stream(event(1, effect=0), ("error", problem))) as asked:
        async with Forge(tmp_path) as forge:
            with pytest.raises(AgentForgeError) as raised:
                async for _ in forge.attach("r1").watch():
                    pass
        assert (raised.value.code, len(asked)) == ("AF706", 1)


def reply(status: str, value: object) -> str:
    body = json.dumps(value)
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"


def lacking(*names: str) -> str:
    problem = {"code": "AF614", "message": "not set", "details": {"variables": [*names]}, "exit_code": 1}
    return reply("422 Unprocessable", problem)


def sent(request: str) -> set[str]:
    return set(json.loads(request.partition("\r\n\r\n")[2])["variables"])


async def test_secrets_that_a_host_lacks_are_sent_and_from_then_on_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONE_KEY", "1")
    monkeypatch.setenv("TWO_KEY", "2")

    def answer(number: int, path: str) -> str:
        return lacking("ONE_KEY") if number == 1 else reply("201 Created", RESULT)

    async with host(tmp_path, answer) as asked, Forge(tmp_path) as forge:
        for _ in range(2):
            assert (await forge.run("agent.yaml", "x")).output == "done"
        await forge.attach("r1").answer("approve")
        assert [sent(request) & {"ONE_KEY", "TWO_KEY"} for request in asked] == [set(), *[{"ONE_KEY"}] * 3]
        keys = [line for head in asked[:2] for line in head.splitlines() if line.lower().startswith("idempotency-key")]
        assert len(set(keys)) == 1


async def test_a_secret_that_is_not_set_here_either_is_an_error_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONE_KEY", "1")
    monkeypatch.delenv("TWO_KEY", raising=False)
    async with host(tmp_path, lambda *_: lacking("ONE_KEY", "TWO_KEY")) as asked, Forge(tmp_path) as forge:
        with pytest.raises(AgentForgeError) as raised:
            await forge.run("agent.yaml", "x")
        assert (raised.value.code, len(asked)) == ("AF614", 2)
        assert [sent(request) & {"ONE_KEY", "TWO_KEY"} for request in asked] == [set(), {"ONE_KEY"}]


@pytest.mark.parametrize("names", [None, "ONE_KEY", [1, ["ONE_KEY"]], {"ONE_KEY": 1}])
async def test_a_host_that_says_nothing_sensible_gets_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: object
) -> None:
    monkeypatch.setenv("ONE_KEY", "1")
    problem = {"code": "AF614", "message": "not set", "details": {"variables": names}, "exit_code": 1}
    async with host(tmp_path, lambda *_: reply("422 No", problem)) as asked, Forge(tmp_path) as forge:
        with pytest.raises(AgentForgeError):
            await forge.run("agent.yaml", "x")
        assert len(asked) == 1


async def test_a_server_elsewhere_gets_no_variable_that_it_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONE_KEY", "1")
    elsewhere = link.Link(tmp_path, url="http://127.0.0.1:1", background=False)
    assert not elsewhere._can_send(["ONE_KEY"])
    assert "ONE_KEY" not in elsewhere.variables()


async def test_runs_that_were_left_get_the_secrets_that_they_lack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONE_KEY", "1")

    def answer(number: int, path: str) -> str:
        names = ["ONE_KEY"] if number == 1 else ["GONE_KEY"]
        return reply("200 OK", {"runs": [], "lacking": [], "variables": names})

    async with host(tmp_path, answer) as asked, Forge(tmp_path) as forge:
        assert await forge.resume_all() == []
        assert [sent(request) & {"ONE_KEY", "GONE_KEY"} for request in asked] == [set(), {"ONE_KEY"}]
