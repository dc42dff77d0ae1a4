"""`docs/reference/protocol.md` names what is on the wire, with the numbers that hold."""

import re
from pathlib import Path

import pytest

from agentforge_worker.runtime import failures, output
from agentforge_worker.wire import PROTOCOL_VERSION, ErrorCode, Method, framing, peer

PAGE = (Path(__file__).parents[2] / "docs/reference/protocol.md").read_text("utf-8")


def constants(names: type) -> list[tuple[str, object]]:
    return [(name, value) for name, value in vars(names).items() if name.isupper()]


@pytest.mark.parametrize("method", [value for _, value in constants(Method)])
def test_every_method_has_its_place(method: str) -> None:
    assert f"`{method}`" in PAGE


def test_no_section_describes_a_method_that_does_not_exist() -> None:
    described = re.findall(r"^### `(.+)`$", PAGE, re.MULTILINE)
    assert set(described) <= {value for _, value in constants(Method)}


@pytest.mark.parametrize(("name", "code"), constants(ErrorCode))
def test_every_error_has_its_row(name: str, code: int) -> None:
    assert f"| `{name}` | {code} |" in PAGE


def test_the_version_is_the_one_spoken() -> None:
    assert f"Version **{PROTOCOL_VERSION}**" in PAGE


@pytest.mark.parametrize(
    "limit",
    [framing.MAX_FRAME, framing.MAX_MESSAGE, peer._MAX_SERVING, failures.MAX_TRACEBACK, output.MAX_LINE],
)
def test_every_limit_is_the_one_that_holds(limit: int) -> None:
    assert re.search(rf"\b{limit}\b", PAGE)


def test_what_may_wait_unsent_is_the_one_that_holds() -> None:
    assert f"| {peer._MAX_UNSENT >> 20} MiB |" in PAGE
