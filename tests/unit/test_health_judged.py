"""What the findings of a probe mean, and what a look at an environment is good for."""

import asyncio
import json
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agentforge.engine.soundness import Soundness
from agentforge.environments import Damage, Environment, Environments, Inspection
from agentforge.errors.environments import EnvironmentBroken
from agentforge.lifecycle import Health
from agentforge.lifecycle.prober import Findings
from agentforge.lifecycle.probing import judged
from agentforge.store import HealthRecord, ProjectId

ENVIRONMENT = Environment("kit-1.0-py311-0", Path("/none"), "3.11.7", "kit", "1.0", "", 0.0)
WELL = Inspection((), 10, 0.1)


def record(start_s: float, cpu_s: float) -> HealthRecord:
    return HealthRecord(
        ProjectId("p"), "here", ENVIRONMENT.id, "kit", "1.0", 1.0, "asked", "ready", start_s=start_s, cpu_s=cpu_s
    )


@pytest.mark.parametrize(
    ("found", "state", "said"),
    [
        ({}, "ready", ""),
        ({"start_s": 20.0, "cpu_s": 2.0, "loaded": True}, "ready", ""),
        ({"start_s": 20.0, "cpu_s": 2.0}, "degraded", "took 20.0 s to start, 2.0 s is usual"),
        ({"start_s": 40.0, "cpu_s": 2.0}, "degraded", "`[workers] start_timeout_s` is 60"),
        ({"start_s": 4.9, "cpu_s": 2.0}, "ready", ""),
        ({"start_s": 2.0, "cpu_s": 9.0, "loaded": True}, "degraded", "9.0 s of processor time, 1.0 s is usual"),
        ({"once": "it stumbled"}, "degraded", "the first of two scripted runs failed: it stumbled"),
        ({"python": "3.11.9"}, "degraded", "built with Python 3.11.7 and has 3.11.9 now"),
        ({"python": "3.11.7"}, "ready", ""),
        ({"inspection": Inspection((Damage("added", "x.pth"),), 1, 0)}, "degraded", "`x.pth`"),
        ({"inspection": Inspection((Damage("missing", "x.py"),), 1, 0)}, "broken", "files are missing (`x.py`)"),
        ({"problem": "no module", "once": "first"}, "broken", "no module"),
    ],
)
def test_findings_mean_a_state(found: dict[str, Any], state: str, said: str) -> None:
    earlier = [record(2.0, 1.0) for _ in range(3)]
    result = judged(ENVIRONMENT, Findings(**{"inspection": WELL, **found}), earlier, 60)
    assert result[0] == state
    assert said in result[1]
    assert bool(result[1]) == bool(said)


def test_nothing_is_slow_before_it_is_known_what_is_usual() -> None:
    assert judged(ENVIRONMENT, Findings(WELL, start_s=20, cpu_s=20), [record(1, 1)] * 2, 60) == ("ready", "")


def test_a_problem_names_the_first_places_of_each_kind() -> None:
    lib = "venv/lib/python3.11/site-packages/"
    damages = [Damage("missing", f"{lib}kit/m{number}.py") for number in range(5)]
    found = Inspection((*damages, Damage("changed", f"{lib}kit.py")), 9, 0)
    assert found.problem == (
        "files are missing (`kit/m0.py`, `kit/m1.py`, `kit/m2.py` and 2 more); files were changed (`kit.py`)"
    )


async def test_probes_go_on_after_a_look_that_failed() -> None:
    looks = asyncio.Event()

    class Failing(Health):
        async def _look_after(self, *, first: bool) -> None:
            if first:
                raise OSError(28, "No space left on device")
            looks.set()

    config = SimpleNamespace(health=SimpleNamespace(interval_s=0.01))
    engine: Any = SimpleNamespace(project=SimpleNamespace(config=config), soundness=SimpleNamespace())
    health = Failing(engine, {})
    health.begin()
    async with asyncio.timeout(10):
        await looks.wait()
    await health.close()


@pytest.fixture
def environments(tmp_path: Path) -> Environments:
    place = tmp_path / "environments" / "kit"
    packages = place / "venv/lib/python3.11/site-packages"
    (packages / "kit-1.0.dist-info").mkdir(parents=True)
    (place / "venv/bin").mkdir()
    (place / "venv/bin/python").touch()
    (place / "venv/pyvenv.cfg").touch()
    (packages / "kit.py").write_text("x = 1\n")
    (packages / "kit-1.0.dist-info/RECORD").write_text("kit.py,,6\nkit-1.0.dist-info/RECORD,,\n")
    (place / "lock.txt").write_text("kit==1.0 \\\n    --hash=sha256:00\n")
    write_marker(place, built_at=1)
    return Environments(tmp_path)


def write_marker(place: Path, built_at: float) -> None:
    import hashlib

    digest = hashlib.sha256((place / "lock.txt").read_bytes()).hexdigest()
    facts = {"python_version": "3.11.7", "framework": "kit", "release": "1.0", "lock_digest": digest}
    (place / "ready.json").write_text(json.dumps({**facts, "built_at": built_at}))


async def test_a_damaged_environment_is_told_at_once_and_a_condemned_one_until_it_is_built_anew(
    environments: Environments, tmp_path: Path
) -> None:
    told: list[str] = []
    soundness = Soundness(environments)
    soundness.on_broken = lambda environment, found: told.append(found.problem)
    await soundness.require("unknown")  # who starts the worker says that
    await soundness.require("kit")
    place = tmp_path / "environments" / "kit"
    file = place / "venv/lib/python3.11/site-packages/kit.py"
    file.unlink()
    with pytest.raises(EnvironmentBroken, match=r"`kit\.py`"):
        await soundness.require("kit")
    assert told == ["files are missing (`kit.py`)"]
    file.write_text("x = 1\n")
    os.utime(file, ns=(0, 0))
    await soundness.require("kit")
    standing = environments.standing("kit")
    assert standing is not None
    soundness.condemn(standing, Inspection((Damage("changed", "kit.py"),), 1, 0))
    with pytest.raises(EnvironmentBroken, match="changed") as caught:
        await soundness.require("kit")
    assert "env build --rebuild kit" in caught.value.hint
    write_marker(place, built_at=2)
    await soundness.require("kit")


async def test_who_comes_while_a_look_goes_on_shares_the_next_one(environments: Environments) -> None:
    looks: list[threading.Event] = []
    results = [WELL, Inspection((Damage("missing", "x.py"),), 1, 0)]

    def look(environment: Environment) -> Inspection:
        number = len(looks)
        looks.append(threading.Event())
        assert looks[number].wait(10)
        return results[number]

    async def begun(number: int) -> None:
        async with asyncio.timeout(10):
            while len(looks) < number:
                await asyncio.sleep(0.01)

    soundness = Soundness(environments, look)
    first = asyncio.ensure_future(soundness.require("kit"))
    await begun(1)
    later = [asyncio.ensure_future(soundness.require("kit")) for _ in range(5)]
    await asyncio.sleep(0.05)
    later[0].cancel()  # the others get theirs all the same
    assert len(looks) == 1
    looks[0].set()
    await first
    await begun(2)
    looks[1].set()
    ends = await asyncio.gather(*later, return_exceptions=True)
    assert [type(end) for end in ends] == [asyncio.CancelledError, *[EnvironmentBroken] * 4]
    assert len(looks) == 2
