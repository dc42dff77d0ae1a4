"""What `agentforge run` ends with."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from agentforge.api import client
from agentforge.cli import run
from agentforge.errors import ErrorInfo
from agentforge.errors.host import RemoteError


class Refusing:
    """A client of a host that refuses each framework as the test says, by exit code."""

    def __init__(self, *given: Any, **options: Any) -> None:
        self.link = self

    async def __aenter__(self) -> "Refusing":
        return self

    async def __aexit__(self, *exc: object) -> None:
        pass

    async def ask(self, request: Callable[["Refusing"], Awaitable[Any]]) -> Any:
        """Do a request."""
        return await request(self)

    async def ask_with_variables(self, request: Callable[["Refusing", dict[str, str]], Awaitable[Any]]) -> Any:
        """Do a request that variables go along with."""
        return await request(self, {})

    async def stream(self, method: str, path: str, body: dict[str, Any]) -> AsyncGenerator[tuple[str, Any], None]:
        """Refuse a build."""
        raise RemoteError(ErrorInfo("AF900", "refused"), int(body["on"][-1]))
        yield


@pytest.mark.parametrize(("on", "code"), [("a1", 1), ("a2", 2), ("a1,b3,c2", 3)])
@pytest.mark.parametrize("as_json", [True, False])
def test_runs_that_never_started_end_the_command_with_the_highest_of_their_codes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, on: str, code: int, as_json: bool
) -> None:
    monkeypatch.setattr(client, "Forge", Refusing)
    with pytest.raises(typer.Exit) as leave:
        run.run("agent", "x", on=on, as_json=as_json, project=tmp_path)
    assert leave.value.exit_code == code
