"""One run after the other uses more than its sandbox may, while its neighbours go on."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from agentforge.sandbox.cgroups import Cgroups
from agentforge_conformance.scripted_model import CalledTool, Step

from .limits_world import cgroups_here
from .project_world import Project, gone

pytestmark = pytest.mark.feature("AF-147")

HOG = '''
import asyncio
import os
import subprocess
import sys
import tempfile
import threading
import time

SPARE = 600
"""Seconds after which whatever nobody ended ends by itself."""
MIB = 2**20


async def agent(input, ctx):
    call = globals()[input["what"]]
    if asyncio.iscoroutinefunction(call):
        return await call(ctx)
    return await asyncio.to_thread(call, ctx)


async def asks(ctx):
    """Wait for the model."""
    answer = await ctx.chat([{"role": "user", "content": "hello"}], model="gate-4")
    return answer["choices"][0]["message"]["content"]


def memory(ctx):
    """Take memory slowly enough to be seen, and no end of it."""
    held = []
    for _ in range(SPARE * 20):
        held.append(os.urandom(8 * MIB))
        time.sleep(0.02)


def memory_of_children(ctx):
    """Take it in processes none of which has much."""
    take = "import os, time; held = os.urandom(60 * 2**20); time.sleep(%d)" % SPARE
    children = [subprocess.Popen([sys.executable, "-S", "-c", take]) for _ in range(8)]
    return [child.wait() for child in children]


def processes(ctx):
    """Start more processes than it may have, and hear nothing of a failure."""
    for _ in range(150):
        try:
            if os.fork() == 0:
                time.sleep(SPARE)
                os._exit(0)
        except OSError:
            pass
        time.sleep(0.01)
    time.sleep(SPARE)


def programs(ctx):
    """The same with programs, and a failure that is not caught."""
    for _ in range(150):
        subprocess.Popen(["sleep", str(SPARE)])
        time.sleep(0.01)
    time.sleep(SPARE)


def threads(ctx):
    for _ in range(150):
        threading.Thread(target=time.sleep, args=(SPARE,), daemon=True).start()


def open_files(ctx):
    held = [open(os.devnull) for _ in range(5000)]


def file_size(ctx):
    with open(os.path.join(ctx.workspace, "large"), "wb") as file:
        for _ in range(64):
            file.write(bytes(MIB))


def workspace(ctx):
    """Write files for as long as it lives, each smaller than a file may be."""
    for number in range(SPARE * 10):
        with open(os.path.join(ctx.workspace, "part%d" % number), "wb") as file:
            file.write(bytes(4 * MIB))
        time.sleep(0.1)


def scratch(ctx):
    for number in range(SPARE * 10):
        with open(os.path.join(tempfile.gettempdir(), "part%d" % number), "wb") as file:
            file.write(bytes(4 * MIB))
        time.sleep(0.02)


def cpu(ctx):
    """Keep two processors busy for four seconds; return how much of them it got."""
    child = os.fork()
    began, used = time.monotonic(), os.times()
    while time.monotonic() - began < 6:
        pass
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    now = os.times()
    return sum(now[:4]) - sum(used[:4])
'''
LIMITS = {
    "memory_mib": 300, "processes": 48, "cpus": 0.5, "open_files": 256,
    "file_mib": 32, "disk_mib": 64, "scratch_mib": 48,
}  # fmt: skip
EXCESSES = {
    "memory": "AF442",
    "memory_of_children": "AF442",
    "processes": "AF443",
    "programs": "AF443",
    "threads": "AF443",
    "open_files": "AF444",
    "file_size": "AF445",
    "workspace": "AF446",
    "scratch": "AF446",
}
NEIGHBOURS = 20


class Crowd:
    """Runs that all wait for their model until one more of them asks."""

    def __init__(self, project: Project, agent: str, size: int, given: Any = "hello") -> None:
        self._project = project
        self._agent = agent
        self._model = f"openai:gate-{size + 1}"
        self._size = size
        self._given = given
        self.runs: list[str] = []

    async def begin(self) -> None:
        for _ in range(self._size):
            self.runs.append(await submit(self._project, self._agent, self._given, model=self._model))
        await self._project.model.wait_for_requests(self._size)

    async def end(self) -> list[dict[str, Any]]:
        """Have them all end, and return their results."""
        last = await submit(self._project, self._agent, self._given, model=self._model)
        return [await self._project.ended(run) for run in (*self.runs, last)][:-1]


async def submit(project: Project, agent: str, given: Any, **more: Any) -> str:
    """Start a run on the host that is there."""
    async with project.connection() as connection:
        body = {"agent": agent, "input": given, "variables": project.variables, **more}
        return str((await connection.post("/v1/runs", body))["run_id"])


def hog(project: Project, folder: str = "hog", **limits: float) -> str:
    project.write(f"{folder}/code.py", HOG)
    native = {"framework": "python", "entrypoint": "code:agent"}
    return project.agent(folder, native=native, limits={**LIMITS, **limits})


async def excess(project: Project, agent: str, what: str, **more: Any) -> dict[str, Any]:
    return await project.ended(await submit(project, agent, {"what": what}, **more))


async def host_without_cgroups(project: Project) -> None:
    """Start the project's host where it can make no cgroups, as in most containers."""
    if os.geteuid() != 0:
        return  # an ordinary user is where it can make none
    read_only = "for each in /sys/fs/cgroup /sys/fs/cgroup/*/; do mount -o remount,bind,ro $each; done"
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", f'{read_only}; exec "$@"', "sh"]
    command += [str(Path(sys.executable).with_name("agentforge")), "runs", "list"]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=project.root, env={**os.environ, **project.variables}, stdout=asyncio.subprocess.DEVNULL
    )
    assert await process.wait() == 0


def held(events: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return what an attempt said of its limits: by name, value and mechanism."""
    started = [event["data"]["limits"] for event in events if event["kind"] == "attempt.started"]
    return dict(started[-1])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("level", ["standard", "none"])
@pytest.mark.parametrize("cgroups", [True, False], ids=["cgroups", "watch"])
async def test_one_run_hits_each_limit_while_its_neighbours_finish_untouched(
    project: Project, level: str, cgroups: bool
) -> None:
    project.write("agentforge.toml", f'[sandbox]\nlevel = "{level}"\n')
    if not cgroups:
        await host_without_cgroups(project)
    await project.command("runs", "list")
    crowd = Crowd(project, project.agent("neighbour"), NEIGHBOURS)
    await crowd.begin()
    agent = hog(project)
    for what, code in EXCESSES.items():
        result = await excess(project, agent, what)
        assert (result["status"], (result["error"] or {}).get("code")) == ("failed", code), (what, result["error"])
    busy = await excess(project, agent, "cpu")
    in_force = held(await project.events(busy["run_id"]))
    assert {name: each["value"] for name, each in in_force.items()} == LIMITS
    assert cgroups or [name for name, each in in_force.items() if "cgroup" in each["by"]] == []
    assert busy["status"] == "succeeded", busy
    assert busy["output"] < 6 * 2 * 0.6, "two processors for six seconds"
    ended = await crowd.end()
    assert {result["status"] for result in ended} == {"succeeded"}
    assert {result["attempts"] for result in ended} == {1}


@pytest.mark.parametrize("what", ["memory", "threads", "open_files"])
async def test_a_run_takes_no_neighbour_in_its_own_worker_along(project: Project, what: str) -> None:
    await project.command("runs", "list")
    agent = hog(project)
    crowd = Crowd(project, agent, 3, {"what": "asks"})
    await crowd.begin()
    result = await excess(project, agent, what)
    assert (result["status"], (result["error"] or {}).get("code")) == ("failed", EXCESSES[what]), result
    assert result["attempts"] == 2, "once among others, once alone"
    pids = [pid_of(event) for event in await project.events(result["run_id"]) if event["kind"] == "attempt.started"]
    for ended in await crowd.end():
        assert (ended["status"], ended["attempts"] <= 2) == ("succeeded", True), ended
        events = await project.events(ended["run_id"])
        assert pid_of(next(event for event in events if event["kind"] == "attempt.started")) == pids[0]
    lost = [event for event in await project.events(result["run_id"]) if event["kind"] == "attempt.lost"]
    assert len(lost) == 1


def pid_of(event: dict[str, Any]) -> int:
    return int(event["data"]["pid"])


async def test_a_run_that_is_alone_in_its_worker_is_not_tried_again(project: Project) -> None:
    await project.command("runs", "list")
    result = await excess(project, hog(project), "memory")
    assert (result["error"]["code"], result["attempts"]) == ("AF442", 1), result
    assert "memory_mib: 300" in result["error"]["message"]


async def test_a_worker_that_needs_too_much_to_start_fails_its_run(project: Project) -> None:
    await project.command("runs", "list")
    project.write(
        "large/code.py", "import os\nheld = [os.urandom(2**22) for _ in range(200)]\ndef agent(input, ctx): pass\n"
    )
    agent = project.agent(
        "large", native={"framework": "python", "entrypoint": "code:agent"}, limits={"memory_mib": 200}
    )
    result = await project.ended(await submit(project, agent, "hello"))
    assert (result["status"], result["error"]["code"], result["attempts"]) == ("failed", "AF442", 1), result


SPREADS = '''
import asyncio
import os
import threading
import time


def fill(folder):
    """Write into a folder for as long as it lives, slowly enough to be seen."""
    for number in range(2000):
        with open(os.path.join(folder, "part%d" % number), "wb") as file:
            file.write(bytes(4 * 2**20))
        time.sleep(0.1)


async def agent(input, ctx):
    above = os.path.dirname(ctx.workspace)
    if input["what"] == "waits":
        while not os.path.exists(os.path.join(ctx.workspace, "end")):
            await asyncio.sleep(0.05)
    if input["what"] == "afterwards":
        threading.Thread(target=fill, args=(ctx.workspace,), daemon=True).start()
    if input["what"] == "next door":
        try:
            await asyncio.to_thread(fill, os.path.join(above, input["folder"]))
        except OSError:
            pass
    return os.path.exists(os.path.join(above, input.get("folder", "")))
'''


def spreads(project: Project) -> str:
    """Write an agent that fills what is not its run's, or not any more."""
    project.write("spreads/code.py", SPREADS)
    native = {"framework": "python", "entrypoint": "code:agent"}
    return project.agent("spreads", native=native, limits={**LIMITS, "disk_mib": 24})


async def test_a_worker_that_writes_after_the_end_of_its_run_is_ended(project: Project) -> None:
    await project.command("runs", "list")
    result = await excess(project, spreads(project), "afterwards")
    assert result["status"] == "succeeded", result
    started = next(event for event in await project.events(result["run_id"]) if event["kind"] == "attempt.started")
    await gone(pid_of(started))


async def test_a_run_that_fills_the_workspace_of_another_is_tried_again_where_it_sees_none(project: Project) -> None:
    await project.command("runs", "list")
    agent = spreads(project)
    earlier = await excess(project, agent, "nothing")
    innocent = await submit(project, agent, {"what": "waits"})
    await project.until(innocent, "attempt.started")
    run = await submit(project, agent, {"what": "next door", "folder": earlier["run_id"]})
    result = await project.ended(run)
    assert (result["status"], result["attempts"]) == ("succeeded", 2), result
    assert result["output"] is False, "it sees its own workspace alone"
    (workspace,) = project.root.glob(f".agentforge/workspaces/*/{innocent}")
    (workspace / "end").touch()
    ended = await project.ended(innocent)
    assert (ended["status"], ended["attempts"]) == ("succeeded", 2), ended


TOOLS = """
import os
import time

def hoards() -> str:
    \"\"\"Take memory.\"\"\"
    held = []
    for _ in range(12000):
        held.append(os.urandom(8 * 2**20))
        time.sleep(0.02)
    return "done"

def opens() -> str:
    \"\"\"Open files.\"\"\"
    return str(len([open(os.devnull) for _ in range(5000)]))

def harmless() -> str:
    \"\"\"Do nothing.\"\"\"
    return "fine"
"""


def calls(project: Project, *names: str) -> str:
    steps = [Step(calls=[CalledTool(name, {})]) for name in names]
    return "openai:" + project.model.script("-".join(names), *steps, Step(text="{tool}"), per="conversation")


def tooled(project: Project, **options: Any) -> str:
    project.write("tooled/tools.py", TOOLS)
    tools = [{"python": f"tools.py:{name}", **options} for name in ("hoards", "opens", "harmless")]
    return project.agent("tooled", tools=tools, limits=LIMITS)


@pytest.mark.parametrize(("tool", "code"), [("hoards", "AF442"), ("opens", "AF444")])
async def test_a_tool_that_uses_too_much_fails_its_run(project: Project, tool: str, code: str) -> None:
    await project.command("runs", "list")
    agent = tooled(project)
    result = await project.ended(await submit(project, agent, "go", model=calls(project, "harmless", tool)))
    assert (result["status"], (result["error"] or {}).get("code")) == ("failed", code), result
    kinds = [event["kind"] for event in await project.events(result["run_id"])]
    assert kinds.count("tool.failed") == 1


@pytest.mark.parametrize(("tool", "code"), [("hoards", "AF442"), ("opens", "AF444")])
async def test_a_tool_in_a_worker_that_served_others_is_called_again_alone(
    project: Project, tool: str, code: str
) -> None:
    await project.command("runs", "list")
    agent = tooled(project, idempotent=True)
    first = await project.ended(await submit(project, agent, "go", model=calls(project, "harmless")))
    assert first["status"] == "succeeded", first
    (before,) = await project.workers("tools")
    result = await project.ended(await submit(project, agent, "go", model=calls(project, tool)))
    assert (result["status"], (result["error"] or {}).get("code")) == ("failed", code), result
    assert before["id"] not in {worker["id"] for worker in await project.workers("tools")}


async def test_a_tool_that_may_have_been_hit_by_another_run_waits_for_an_answer(project: Project) -> None:
    await project.command("runs", "list")
    agent = tooled(project)
    await project.ended(await submit(project, agent, "go", model=calls(project, "harmless")))
    result = await project.ended(await submit(project, agent, "go", model=calls(project, "hoards")))
    assert result["status"] == "waiting", result
    assert [each["kind"] for each in result["interrupts"]] == ["tool"]


async def test_code_that_a_model_wrote_is_held_to_the_limits_too(project: Project) -> None:
    await project.command("runs", "list")
    code = "import os, time\nheld = []\nwhile True:\n    held.append(os.urandom(8 * 2**20))\n    time.sleep(0.02)\n"
    agent = project.agent("coder", tools=[{"code": "python"}], permissions={"code": "allow"}, limits=LIMITS)
    step = Step(calls=[CalledTool("run_python", {"code": code})])
    model = "openai:" + project.model.script("hoards", step, Step(text="{tool}"), per="conversation")
    result = await project.ended(await submit(project, agent, "go", model=model))
    assert result["status"] == "succeeded", "the model was told, as of any failure of its code"
    assert "memory_mib: 300" in result["output"]
    failed = [event["data"] for event in await project.events(result["run_id"]) if event["kind"] == "tool.failed"]
    assert [data["error"]["code"] for data in failed] == ["AF442"]


@pytest.mark.skipif(not cgroups_here(), reason="no control groups can be made here")
async def test_the_groups_of_a_killed_host_are_removed_by_the_next(project: Project) -> None:
    await project.command("runs", "list")
    crowd = Crowd(project, project.agent("neighbour"), 1)
    await crowd.begin()
    state = project.root / ".agentforge"
    mine = Cgroups.find(state)
    left = {path for place in mine._places.values() for path in place.folder.glob(f"{mine._prefix}*")}
    assert len(left) == 3
    pid = (await project.host())["pid"]
    os.kill(pid, signal.SIGKILL)
    await gone(pid)
    assert all(path.exists() for path in left)
    await project.command("runs", "list")
    async with project.connection() as connection:
        await connection.post("/v1/runs/resume", {"variables": project.variables})
    assert [path for path in left if path.exists()] == []
    assert (await crowd.end())[0]["status"] == "succeeded"
