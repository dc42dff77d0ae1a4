"""A user's project on the attacked machine: a host in this process, a neighbour, a victim, and the attacks.

    python world.py LEVEL KIND TARGETS ONLY

Prints one JSON object: what came of each attack, the canaries that were made here, which targets were changed.
"""

import asyncio
import contextlib
import json
import os
import resource
import shutil
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from attacks import ATTACKS, Attack
from attacks.registry import MARK
from judges import JUDGES, Scene, ended_well
from telling_model import TellingModel

from agentforge import Forge, RunHandle, RunResult
from agentforge.api.place import host_place

__all__ = ["World"]

_PATIENCE_S = 30.0
_AT_ONCE = 5
_PROJECT = """
[workers]
max_workers = 32
start_timeout_s = 15
idle_s = 2

[durability]
max_attempts = 1

"""
_CALM = ("neighbours-model", "hosts-memory", "hosts-processor")
"""Judges that look at what goes on during the attack: nothing else goes on then."""


class World:
    """One host at one level."""

    def __init__(self, level: str, kind: str, targets: dict[str, Any], model: TellingModel) -> None:
        self.level = level
        self.targets = targets
        self.root = Path(targets["project"])
        self.home = Path(targets["home"])
        self.model = model
        self.secrets: dict[str, str] = model.secrets
        self.reports: dict[str, Any] = {}
        self.changed: list[str] = []
        self.early = Path(targets["early"]) / "af_early_mode"

    # ---- the project

    def make_project(self) -> None:
        """Write the project's files and its agents."""
        model = f'base_url = "{self.model.base_url}"\napi_key = "${{env:OPENAI_API_KEY}}"\n'
        text = f'[sandbox]\nlevel = "{self.level}"\n' + _PROJECT
        for alias, name in (("default", "scripted"), ("costly", "scripted-costly")):
            text += f'[models.{alias}]\nmodel = "{name}"\n{model}'
        (self.root / "agentforge.toml").write_text(text)
        other = self.home / "other/.agentforge"
        other.mkdir(parents=True, exist_ok=True)
        (other / "state.db").write_text(self.secret("other-project"))
        self.targets["other_project"] = str(other.parent)
        self.agent("attacker", "langchain@1")
        self.agent("victim", "python", f"# {self.secret('agent-code')}\n")
        self.agent("spent", "python")
        self.agent("asker", "python")
        elsewhere = self.home / "elsewhere"
        shutil.copy(HERE / "agents/child.py", elsewhere)
        (elsewhere / "agent.yaml").write_text(json.dumps(_native("child", "python", "child")))
        self.targets["agent_elsewhere"] = str(elsewhere)

    def agent(self, code: str, framework: str, comment: str = "", *, folder: str = "", **keys: Any) -> str:
        """Write an agent into a folder and return that."""
        place = self.root / (folder or code)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        if code in ("attacker", "loner"):
            skipped = shutil.ignore_patterns("__pycache__")
            shutil.copytree(HERE / "attacks", place / "attacks", ignore=skipped)
            shutil.copy(HERE / "agents/child.py", place)
        (place / f"{code}.py").write_text(comment + (HERE / f"agents/{code}.py").read_text())
        (place / "agent.yaml").write_text(json.dumps({**_native(place.name, framework, code), **keys}))
        return place.name

    def secret(self, name: str) -> str:
        """Return a canary of this world's own."""
        return self.model.secret(name)

    # ---- the others

    async def start_others(self, forge: Forge) -> RunHandle:
        """Run an agent that gives its token away, and start the victim; say where it is."""
        self.targets["spent_token"] = (await forge.run("spent", "")).check().output
        names = ("memory", "workspace", "environ", "port")
        canaries = {
            "memory": "victim-memory",
            "workspace": "workspace",
            "environ": "victim-environ",
            "port": "victim-port",
        }
        given = {name: self.secret(canaries[name]) for name in names}
        victim = await forge.submit("victim", {"first": self.secret("input"), **given})
        async for event in victim.events():
            text = str(event.data.get("text", ""))
            if text.startswith("told "):
                told = json.loads(text[5:])
                break
            if event.kind == "run.finished":
                raise RuntimeError(f"the victim ended: {event.data}")
        for name in ("pid", "child_pid"):
            told[name] = _outer(told[name], self.level)
        self.targets["victim"] = {**told, "run_id": victim.run_id}
        return victim

    async def end_victim(self, victim: RunHandle) -> None:
        """See that nobody disturbed the victim."""
        Path(self.targets["victim"]["workspace"], "end").touch()
        result = await victim.result()
        if result.output != "undisturbed":
            self.reports["the-victim"] = {"evidence": f"it ended so: {result.status} {result.error}"}

    # ---- the attacks

    async def attack(self, forge: Forge, chosen: Sequence[Attack]) -> None:
        """Make all attacks."""
        victim = self.victim = await self.start_others(forge)
        runtime = host_place(self.root)
        sockets = sorted(runtime.socket.parent.glob("*.sock"))
        self.targets |= {"host_pid": os.getpid(), "api_socket": str(sockets[0]), "model_port": self.model.port}
        with open(self.targets["open_log"], "a"):  # the host's open file that is aimed at
            async with self.pinged(forge) as pings:
                await self.attack_together(forge, victim, [each for each in chosen if not each.alone])
                loners = [each for each in chosen if each.alone]
                crowd = asyncio.Semaphore(_AT_ONCE)
                calm = [each for each in loners if each.judge in _CALM or each.early or each.name == "cpu-hog"]
                await asyncio.gather(
                    *(self.attack_alone(forge, each, crowd, pings) for each in loners if each not in calm)
                )
                for each in calm:
                    await self.attack_alone(forge, each, crowd, pings)
            await self.end_victim(victim)

    async def attack_together(self, forge: Forge, victim: RunHandle, attacks: Sequence[Attack]) -> None:
        """Make the attacks of one run."""
        if not attacks:
            return
        before = _descriptors()
        names = [each.name for each in attacks]
        handle = await forge.submit("attacker", {"names": names, "world": self.targets})
        result = await handle.result()
        if not isinstance(result.output, dict):
            await self.say_what_ended(handle, result)
            return
        self.reports |= result.output.pop("reports")
        self.reports["the-batch"] = {"sandbox": result.raw.get("sandbox"), "where": result.output}
        scene = Scene(self, forge, handle, result, victim, _descriptors() - before)
        for each in attacks:
            if each.judge:
                self.reports[each.name] |= await JUDGES[each.judge](scene) or {}
        self.look_for_marks(result.output)
        for each in attacks:
            if each.optional and self.level == "none" and not self.reports[each.name]["evidence"]:
                self.reports[each.name]["bare"] = await self.bare(each, result.output)

    async def bare(self, attack: Attack, where: Mapping[str, Any]) -> dict[str, Any]:
        """Make an attack in a plain process of the host's user: what fails here, this kernel refuses to everybody."""
        code = "import json, sys; from attacks import batch; "
        code += "print(json.dumps(batch.attack_bare(*map(json.loads, sys.argv[1:]))))"
        arguments = [json.dumps(attack.name), json.dumps({**self.targets, **where})]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, *arguments, stdout=asyncio.subprocess.PIPE, cwd=HERE
        )
        out, _ = await process.communicate()
        return dict(json.loads(out)) if out else {"evidence": None, "blocked": "its process was ended"}

    async def say_what_ended(self, handle: RunHandle, result: RunResult) -> None:
        """Report that the run of all attacks ended before its time."""
        events = await handle._link.connection.get(f"/v1/runs/{handle.run_id}/events")
        said = [f"{each['kind']} {each['data']}"[:300] for each in events["events"]][-12:]
        self.reports["the-batch"] = {"failed": f"{result.status} {result.error}", "events": said}

    def look_for_marks(self, where: Mapping[str, Any]) -> None:
        """Find out which of the host's own files were changed, and put them back."""
        places = {
            "worker-zip": where["worker_zips"],
            "adapter": where["adapters"],
            "agent-version": [where["agent_version"] + "/attacker.py"],
            "workspace": [self.targets["victim"]["workspace"] + "/" + MARK],
            "victim-signalled": [self.targets["victim"]["workspace"] + "/signalled"],
        }
        for name, paths in places.items():
            found = [Path(path) for path in paths if MARK.encode() in _content(path)]
            for path in found:
                self.changed.append(name)
                path.write_bytes(_content(path).replace(f"# {MARK}\n".encode(), b""))

    async def attack_alone(self, forge: Forge, attack: Attack, crowd: asyncio.Semaphore, pings: list[float]) -> None:
        """Make one attack in a run of its own, and see how the host and the neighbours take it."""
        limits = {"limits": attack.limits} if self.level != "none" or attack.kind == "host" else {}
        async with crowd:
            folder = self.agent("loner", "python", folder=f"loner-{attack.name}", **limits)
            before, memory, opened = len(pings), _largest(), _descriptors()
            began, used = time.monotonic(), time.process_time()
            self.early.write_text(attack.early)
            try:
                async with asyncio.timeout(attack.timeout_s + _PATIENCE_S):
                    handle = await forge.submit(folder, {"names": [attack.name], "world": self.targets, "alone": True})
                    result = await handle.result()
                    report = _report_of(result)
                    report["ended"] = f"{result.status} {result.error.code if result.error else ''}".strip()
                    scene = Scene(
                        self,
                        forge,
                        handle,
                        result,
                        self.victim,
                        _descriptors() - opened,
                        pings[before:],
                        _largest() - memory,
                        used,
                        attack,
                        folder,
                    )
                    if attack.judge:
                        report |= await JUDGES[attack.judge](scene) or {}
                    report |= ended_well(pings[before:], time.monotonic() - began)
            except TimeoutError:
                report = {"evidence": "the host did not end the run"}
                if not await _answers(forge):
                    self.end_here(attack)
            finally:
                self.early.write_text("")
            report["seconds"] = f"{time.monotonic() - began:.2f}"
            self.reports[attack.name] = report

    def end_here(self, attack: Attack) -> None:
        """Tell what is known so far, and leave the host that hangs."""
        self.reports[attack.name] = {"evidence": "the host does not answer any more"}
        self.reports["the-end"] = f"the host hung in `{attack.name}`"
        self.tell()
        os._exit(0)

    def tell(self) -> None:
        """Print what came of everything."""
        print(json.dumps({"reports": self.reports, "changed": self.changed, "secrets": self.secrets}), flush=True)

    @contextlib.asynccontextmanager
    async def pinged(self, forge: Forge) -> AsyncIterator[list[float]]:
        """Have a neighbour ask its model all the while; gives the seconds that each took, or -1 for a failure."""
        took: list[float] = []

        async def ping() -> None:
            while True:
                began = time.monotonic()
                try:
                    async with asyncio.timeout(_PATIENCE_S):
                        result = await forge.run("asker", {})
                    took.append(time.monotonic() - began if result.ok else -1.0)
                except TimeoutError:
                    took.append(_PATIENCE_S)
                await asyncio.sleep(0.25)

        (await forge.run("asker", {})).check()  # its worker is there from here on
        pinging = asyncio.create_task(ping())
        try:
            yield took
        finally:
            pinging.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await pinging


async def _answers(forge: Forge) -> bool:
    try:
        async with asyncio.timeout(10):
            await forge.connection.get("/v1/host")
    except (TimeoutError, OSError):
        return False
    return True


def _native(name: str, framework: str, module: str) -> dict[str, Any]:
    return {"name": name, "native": {"framework": framework, "entrypoint": f"{module}:agent"}}


def _report_of(result: RunResult) -> dict[str, Any]:
    if isinstance(result.output, dict):
        report = dict(result.output)
        report["evidence"] = report["evidence"] and report["evidence"][:300]
        return report
    return {"evidence": None, "blocked": f"the run ended: {result.status} {result.error}"[:500]}


def _outer(pid: int, level: str) -> int:
    """Return the process id that a process in a sandbox has out here."""
    if level == "none":
        return pid
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            line = next(each for each in status.read_text().splitlines() if each.startswith("NSpid:"))
            numbers = line.split()[1:]
            if (
                len(numbers) > 1
                and int(numbers[-1]) == pid
                and b"sleep" in _content(status.with_name("cmdline")) + b"sleep"
            ):
                return int(numbers[0])
    return 2**22 - 1


def _content(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def _largest() -> float:
    """Return the most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _outlived(name: str) -> str | None:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        if f"af-{name}\0".encode() in _content(path):
            os.kill(int(path.parent.name), 9)
            return "the process is still there"
    return None


async def main(level: str, kind: str, targets: str, only: str) -> None:
    """Run the world and print what came of it."""
    model = TellingModel(json.load(sys.stdin))
    world = World(level, kind, json.loads(Path(targets).read_text()), model)
    world.make_project()
    names = json.loads(only)
    chosen = [each for each in ATTACKS.values() if not names or each.name in names]
    async with Forge(world.root) as forge:
        await world.attack(forge, chosen)
    for name in ("outlive", "outlive-by-the-fence"):
        if name in world.reports:
            world.reports[name]["evidence"] = _outlived(name)
    world.tell()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
