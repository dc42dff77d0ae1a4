"""What a native agent's entry point may name, and what is told of all else."""

import functools
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest

from agentforge_worker.adapter import EffectFailed, Natives

KIT = Natives("an agent of Kit", lambda found: isinstance(found, dict))


async def makes_late() -> Any:
    return {"late": True}


def makes_wrong() -> Any:
    return 5


def wants(argument: Any) -> Any:
    return {}


@pytest.fixture(autouse=True)
def mine() -> Iterator[None]:
    module = types.ModuleType("mine")
    module.__dict__.update(agent={}, number=5, Thing=type("Thing", (), {}), make=lambda: {"made": True})
    module.__dict__.update(part=functools.partial(dict), makes_late=makes_late)
    sys.modules["mine"] = module
    yield
    del sys.modules["mine"]


@pytest.mark.parametrize(
    ("name", "told"),
    [("number", "a value of type `int`"), ("Thing", "the class `Thing`"), ("part", "a value of type `partial`")],
)
def test_an_object_that_is_no_agent_is_refused_when_it_is_named(name: str, told: str) -> None:
    with pytest.raises(EffectFailed) as caught:
        KIT.named("mine", name)
    error = caught.value
    assert (error.code, error.origin) == ("AF422", "user")
    assert error.text == f"the entry point `mine:{name}` names {told}, and not an agent of Kit"
    assert error.hint.startswith("Name an agent of Kit in `native.entrypoint`, or a function")


async def test_functions_are_called_and_waited_for_in_each_way() -> None:
    assert KIT.named("mine", "agent") == await KIT.made({}) == {}
    assert await KIT.made(KIT.named("mine", "make")) == {"made": True}
    assert await KIT.made(KIT.named("mine", "makes_late")) == {"late": True}
    waited: list[Any] = []

    def wait(work: Any) -> Any:
        waited.append(work)
        work.close()
        return {"late": True}

    assert KIT.made_blocking(makes_late, wait) == {"late": True}
    assert len(waited) == 1


async def test_what_a_function_makes_is_looked_at_too() -> None:
    with pytest.raises(EffectFailed, match=r"test_guest_entrypoint:makes_wrong`, which .* made a value of type `int`"):
        await KIT.made(makes_wrong)
    with pytest.raises(EffectFailed, match="names a function that needs arguments, and not an agent of Kit"):
        await KIT.made(wants)


def test_what_is_not_there_stays_what_python_says() -> None:
    with pytest.raises(AttributeError, match="missing"):
        KIT.named("mine", "missing")
    with pytest.raises(ModuleNotFoundError):
        KIT.named("mine_too", "agent")
