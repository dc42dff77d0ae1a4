"""What the host's side looks at after an attack that can't judge by itself. Each returns what it adds to a report."""

import asyncio
import io
import json
import re
import subprocess
import time
import zipfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attacks.registry import Attack
from attacks.resources import SMALL
from attacks.wire import FORGED

from agentforge import Forge, RunHandle, RunResult

if TYPE_CHECKING:
    from world import World

__all__ = ["JUDGES", "Scene", "ended_well"]

_SLOW_S = 8.0
_HOSTS_KINDS = ("run.finished", "model.responded", "tool.returned", "interrupt.answered", "made.up")
Report = dict[str, Any]


@dataclass(frozen=True)
class Scene:
    """Where an attack took place, once it is over."""

    world: "World"
    forge: Forge
    handle: RunHandle
    result: RunResult
    victim: RunHandle
    descriptors: int
    """How many more the host has open than before."""
    pings: Sequence[float] = ()
    grown_mib: float = 0.0
    """How much more memory the host has had than ever before."""
    used_s: float = 0.0
    """How much processor time the host had used before."""
    attack: Attack | None = None
    """The attack, where it was made alone."""
    folder: str = ""
    """The folder of its agent then."""


def ended_well(pings: Sequence[float], took_s: float) -> Report:
    """Say so if the neighbour was disturbed meanwhile."""
    if any(each < 0 for each in pings):
        return {"evidence": "the neighbour's run failed"}
    if pings and max(pings) > _SLOW_S:
        return {"evidence": f"the neighbour waited {max(pings):.1f} s"}
    if not pings and took_s > _SLOW_S:
        return {"evidence": f"the neighbour did nothing for {took_s:.1f} s"}
    return {}


async def forged(scene: Scene) -> Report:
    """Look for forged messages in the victim's events, and for forged kinds in the attacker's own."""
    if FORGED in json.dumps(await _events(scene, scene.victim)):
        return {"evidence": "the victim's events hold what was forged"}
    own = [each for each in await _events(scene, scene.handle) if each["kind"] in _HOSTS_KINDS]
    if FORGED in json.dumps([each["data"] for each in own if each["kind"] != "run.finished"]):
        return {"evidence": "the run's own events hold kinds that were forged"}
    finished = [each for each in own if each["kind"] == "run.finished"]
    return {"evidence": "the run ended twice"} if len(finished) > 1 else {}


async def _events(scene: Scene, handle: RunHandle) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    while True:
        after = events[-1]["seq"] if events else 0
        answer = await scene.forge.connection.get(f"/v1/runs/{handle.run_id}/events", after=after)
        if not answer["events"]:
            return events
        events += answer["events"]


async def forged_files(scene: Scene) -> Report:
    """Look for files with the forged name."""
    places = ("/tmp", scene.world.home, "/run/user-me")
    # Not `os.walk`, which gives up on the depths that another attack makes.
    found = subprocess.run(["find", *places, "-name", FORGED], capture_output=True, text=True, check=False)
    return {"evidence": f"there is {found.stdout.split()[0]}"} if found.stdout.strip() else {}


async def smuggled(scene: Scene) -> Report:
    """Look for a request at the endpoint that nobody was to send."""
    found = [path for path, _ in scene.world.model.seen if "smuggled" in path]
    return {"evidence": f"the endpoint was asked for {found[0]}"} if found else {}


async def other_key(scene: Scene) -> Report:
    """Look for another key at the endpoint."""
    found = [name for _, headers in scene.world.model.seen for name, value in headers.items() if "attacker" in value]
    lacking = [path for path, headers in scene.world.model.seen if "chat" in path and "Authorization" not in headers]
    if lacking:
        return {"evidence": "a request came without the real key"}
    return {"evidence": f"the endpoint got another key in {found[0]}"} if found else {}


async def kept_mib(scene: Scene) -> Report:
    """See how much of a run's output was kept."""
    mib = len(json.dumps(await _events(scene, scene.handle))) / 2**20
    return {"evidence": f"{mib:.1f} MiB were kept"} if mib > 2 * SMALL["output_mib"] else {}


async def kept_events(scene: Scene) -> Report:
    """See how many of a run's events were kept."""
    count = len(await _events(scene, scene.handle))
    return {"evidence": f"{count} events were kept"} if count > 1.5 * SMALL["events"] else {}


async def descriptors(scene: Scene) -> Report:
    """See whether the host holds descriptors that it was sent."""
    return {"evidence": f"the host has {scene.descriptors} more"} if scene.descriptors > 300 else {}


async def neighbours_model(scene: Scene) -> Report:
    """See that the neighbour was served meanwhile (`ended_well` looks at how well)."""
    return {}


async def hosts_memory(scene: Scene) -> Report:
    """See whether the host's memory was filled."""
    return {"evidence": f"the host has grown by {scene.grown_mib:.0f} MiB"} if scene.grown_mib > 200 else {}


async def hosts_processor(scene: Scene) -> Report:
    """See whether the host is busy with nothing."""
    used, began = time.process_time(), time.monotonic()
    await asyncio.sleep(1.0)
    share = (time.process_time() - used) / (time.monotonic() - began)
    spent = used - scene.used_s
    return (
        {"evidence": f"the host used {spent:.1f} s, then {share:.2f} processors"} if spent > 2.5 or share > 0.5 else {}
    )


async def export(scene: Scene) -> Report:
    """Export the run and look for canaries in the file."""
    place = Path("/run/user-me/export.zip")
    try:
        async with asyncio.timeout(20):
            await scene.handle.export(place)
    except TimeoutError:
        return {"evidence": "the export hangs"}
    with zipfile.ZipFile(io.BytesIO(place.read_bytes())) as archive:
        for name in archive.namelist():
            found = re.search(rb"canary-(ssh-key|dotenv|bashrc|outside)-[0-9a-f]{24}", archive.read(name))
            if found:
                return {"evidence": f"{name} of the export holds {found.group().decode()}"}
    return {}


async def resumed(scene: Scene) -> Report:
    """Answer the run's question, so that it goes on in what it has made of its workspace."""
    if scene.result.status != "waiting":
        return {
            "evidence": None,
            "blocked": f"it did not come to its question: {scene.result.status} {scene.result.error}",
        }
    await scene.handle.answer("answer", "go on")
    result = await scene.handle.result()
    said = result.output if isinstance(result.output, dict) else {"evidence": None, "blocked": f"{result.error}"}
    return {**said, "ended": f"resumed, {result.status}"}


async def once_more(scene: Scene) -> Report:
    """Have the same agent attack once more, knowing the workspace that its first run says it had."""
    said = scene.result.output
    if not isinstance(said, dict) or not said["evidence"]:
        return {"evidence": None, "blocked": f"the first run: {scene.result.status} {scene.result.error} {said}"}
    assert scene.attack is not None
    given = {"names": [scene.attack.name], "world": {**scene.world.targets, "earlier": said["evidence"]}, "alone": True}
    result = await (await scene.forge.submit(scene.folder, given)).result()
    if not isinstance(result.output, dict):
        return {"evidence": None, "blocked": f"the run ended: {result.status} {result.error}"[:500]}
    return {**result.output, "ended": f"again, {result.status}"}


async def outlived(scene: Scene) -> Report:
    """Leave it to the end of the host."""
    return {}


JUDGES: dict[str, Callable[[Scene], Awaitable[Report]]] = {
    "descriptors": descriptors,
    "export": export,
    "forged": forged,
    "forged-files": forged_files,
    "hosts-processor": hosts_processor,
    "hosts-memory": hosts_memory,
    "kept-events": kept_events,
    "kept-mib": kept_mib,
    "neighbours-model": neighbours_model,
    "once-more": once_more,
    "other-key": other_key,
    "outlived": outlived,
    "resumed": resumed,
    "smuggled": smuggled,
}
