"""What an agent's tools are permitted becomes the fence and the variables of their worker, and nothing more."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentforge import Forge
from agentforge.errors import AgentForgeError
from agentforge_conformance.scripted_model import CalledTool, Step

from .project_world import Project, gone

SECRET = "sk-live-0123456789abcdef"
OTHER = "sk-test-fedcba9876543210"
TOOLS = '''
import os, sys

LEVEL = os.environ.get("AN_API_KEY", "none")


def look(path: str) -> str:
    """Read a file, or list a folder."""
    try:
        if os.path.isdir(path):
            return " ".join(sorted(os.listdir(path)))
        return open(path).read()
    except OSError as error:
        return type(error).__name__


def put(path: str, text: str = "x") -> str:
    """Write a file."""
    try:
        with open(path, "w") as file:
            return str(file.write(text))
    except OSError as error:
        return type(error).__name__


def key(how: str) -> dict:
    """Use the key, and be careless with it."""
    secret = os.environ["AN_API_KEY"]
    if how == "prints":
        print("the key is", secret)
        print("the key is", secret, file=sys.stderr, flush=True)
        os.write(1, secret.encode() + b"\\n")
    if how == "raises":
        raise ValueError("no entry with " + secret)
    return {"length": len(secret), "pid": os.getpid(), secret: [secret], "names": sorted(os.environ)}
'''


class World:
    """A project with an agent whose tools look, put, and use a key."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.data = project.root / "data"
        self.data.mkdir()
        (self.data / "table.csv").write_text("1,2,3")
        (self.data / "private").write_text("for the owner's eyes")
        (self.data / "private").chmod(0o600)

    def agent(self, folder: str = "agent", permissions: dict[str, Any] | None = None, **keys: Any) -> str:
        self.project.write(f"{folder}/tools.py", TOOLS)
        tools = [{"python": f"tools.py:{name}", **keys} for name in ("look", "put", "key")]
        return self.project.agent(folder, tools=tools, permissions=permissions or {})

    def model(self, *calls: tuple[str, dict[str, Any]], then: str = "done") -> tuple[str, str]:
        steps = [Step(calls=[CalledTool(name, given)]) for name, given in calls]
        script = self.project.model.script(f"calls{abs(hash(str(calls)))}", *steps, Step(text=then), per="conversation")
        return "--model", f"openai:{script}"

    async def call(self, agent: str, *calls: tuple[str, dict[str, Any]], **variables: str) -> list[Any]:
        """Return what the calls returned."""
        result = await self.project.run(agent, "go", *self.model(*calls), variables=variables)
        assert result["status"] == "succeeded", result
        return [call.get("result", call.get("error")) for call in result["tool_calls"]]

    async def seen(self, agent: str, *paths: Path | str) -> list[str]:
        return await self.call(agent, *(("look", {"path": str(path)}) for path in paths))

    async def written(self, agent: str, *paths: Path | str) -> list[str]:
        return await self.call(agent, *(("put", {"path": str(path)}) for path in paths))

    def kept(self) -> Iterator[Path]:
        """Yield all files that the project's state has, of whatever kind."""
        return (path for path in (self.project.root / ".agentforge").rglob("*") if path.is_file())


@pytest.fixture
async def world(project: Project) -> World:
    return World(project)


# ---- files


async def test_tools_see_nothing_of_the_project_unless_it_is_permitted(world: World) -> None:
    root = world.project.root
    (root / ".env").write_text("KEY=1")
    paths = [world.data / "table.csv", root / ".env", root / ".agentforge/state.db", root / "agent/agent.yaml"]
    assert await world.seen(world.agent(), *paths) == ["FileNotFoundError"] * 4


async def test_tools_read_what_they_are_permitted_to_and_write_nothing_there(world: World) -> None:
    agent = world.agent(permissions={"read": ["data"]})
    table = world.data / "table.csv"
    assert await world.seen(agent, table, world.data / "private") == ["1,2,3", "for the owner's eyes"]
    assert await world.written(agent, table, world.data / "new") == ["OSError", "OSError"]
    assert table.read_text() == "1,2,3"


async def test_a_file_may_be_permitted_by_itself(world: World) -> None:
    agent = world.agent(permissions={"read": ["data/table.csv"]})
    found = await world.seen(agent, world.data / "table.csv", world.data / "private", world.data)
    assert found == ["1,2,3", "FileNotFoundError", "table.csv"]


async def test_what_tools_write_is_the_owners_and_stays(world: World) -> None:
    (world.data / "out").mkdir()
    agent = world.agent(permissions={"write": ["data/out"]})
    await world.written(agent, world.data / "out/new", world.data / "other")
    assert not (world.data / "other").exists()
    new = world.data / "out/new"
    assert new.read_text() == "x"
    assert (new.stat().st_uid, new.stat().st_gid) == (world.data.stat().st_uid, world.data.stat().st_gid)
    assert await world.seen(agent, new) == ["x"], "in the next run as well"


async def test_of_the_project_folder_tools_do_not_see_the_state(world: World) -> None:
    root = world.project.root
    agent = world.agent(permissions={"read": ["."]})
    table, state, database = await world.seen(
        agent, "data/table.csv", root / ".agentforge", root / ".agentforge/state.db"
    )
    assert table == "FileNotFoundError", "the folder that it starts in is another one"
    assert "state.db" not in state
    assert database == "FileNotFoundError"
    assert await world.seen(agent, root / "data/table.csv") == ["1,2,3"]
    agent = world.agent(permissions={"write": [".", "agent"]})
    hidden = [root / ".agentforge/x", root / ".agentforge/versions/x"]
    assert await world.written(agent, *hidden, root / "x") == ["OSError", "OSError", "1"]
    assert (root / "x").read_text() == "x"


async def test_tools_leave_no_file_that_gives_its_owners_rights_away(world: World) -> None:
    code = '''
import os


def give(path: str) -> list:
    """Try to."""
    tried = []
    for make in (lambda: os.chmod(path, 0o4755), lambda: os.chmod(path, 0o2755),
                 lambda: os.close(os.open(path + "2", os.O_CREAT | os.O_WRONLY, 0o4755))):
        try:
            make()
            tried.append("done")
        except OSError as error:
            tried.append(error.strerror)
    return tried
'''
    (world.data / "out").mkdir()
    (world.data / "out/program").write_text("#!/bin/sh\n")
    world.project.write("giver/tools.py", code)
    agent = world.project.agent("giver", tools=[{"python": "tools.py:give"}], permissions={"write": ["data/out"]})
    (tried,) = await world.call(agent, ("give", {"path": str(world.data / "out/program")}))
    assert tried == ["Operation not permitted"] * 3
    assert not any(path.stat().st_mode & 0o6000 for path in (world.data / "out").iterdir())


@pytest.mark.parametrize(
    ("permissions", "named"),
    [
        ({"read": ["data", "no/such"]}, "`permissions.read[1]` is `no/such`, which can't be used"),
        ({"write": [".agentforge"]}, "`permissions.write[0]` is `.agentforge`, which is in"),
        ({"read": ["/proc"]}, "`permissions.read[0]` is `/proc`, which is the system's"),
    ],
)
async def test_a_path_that_is_not_granted_is_refused_before_anything_starts(
    world: World, permissions: dict[str, Any], named: str
) -> None:
    done = await world.project.command("run", world.agent(permissions=permissions), "go", *world.model())
    assert (done.code, done.out) == (1, "")
    assert "error[AF613]: " in done.err
    assert "agent.yaml:1:" in done.err
    assert named in done.err
    assert "hint: " in done.err


async def test_neither_home_nor_sockets_of_agentforge_are_granted(world: World, home: Path) -> None:
    for path in (home, home / "environments", Path(os.environ["XDG_RUNTIME_DIR"]) / "agentforge"):
        result = (
            await world.project.command("run", world.agent(permissions={"read": [str(path)]}), "x", "--json")
        ).result
        assert result["error"]["code"] == "AF613", path
    above = Path(os.environ["XDG_RUNTIME_DIR"])
    (hidden,) = await world.seen(world.agent(permissions={"read": [str(above)]}), above / "agentforge")
    assert hidden == "", "in a folder above it the socket is not to be seen"


# ---- secrets


async def test_a_tool_gets_its_secret_and_nobody_else_gets_to_see_it(world: World) -> None:
    agent = world.agent(permissions={"secrets": ["AN_API_KEY"]}, on_error="tell")
    found, printed, raised = await world.call(
        agent, *(("key", {"how": how}) for how in ("returns", "prints", "raises")), AN_API_KEY=SECRET
    )
    assert (found["length"], found["[redacted]"]) == (len(SECRET), ["[redacted]"])
    assert printed["length"] == len(SECRET)
    assert "no entry with [redacted]" in raised
    assert "AN_API_KEY" in found["names"]
    assert "OPENAI_API_KEY" not in found["names"]
    async with asyncio.timeout(20):
        while "the key is [redacted]" not in (world.project.root / ".agentforge/host.log").read_text():
            await asyncio.sleep(0.05)
    for path in world.kept():
        assert SECRET.encode() not in path.read_bytes(), path
    for request in world.project.model.requests:
        assert SECRET.encode() not in request.body
    (worker,) = await world.project.workers("tools")
    assert SECRET not in json.dumps(await world.project.host())
    host = (await world.project.host())["pid"]
    for pid in (host, *(each["pid"] for each in await world.project.workers())):
        assert SECRET.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
        assert SECRET.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert SECRET.encode() not in Path(f"/proc/{worker['pid']}/cmdline").read_bytes()


async def test_a_tool_that_fails_the_run_does_not_tell_the_secret_either(world: World) -> None:
    agent = world.agent(permissions={"secrets": ["AN_API_KEY"]})
    model = world.model(("key", {"how": "raises"}))
    result = await world.project.run(agent, "go", *model, variables={"AN_API_KEY": SECRET})
    assert (result["status"], result["error"]["code"]) == ("failed", "AF603")
    assert "no entry with [redacted]" in result["error"]["message"]
    assert "[redacted]" in result["error"]["details"]["traceback"]
    assert SECRET not in json.dumps(result)
    for path in world.kept():
        assert SECRET.encode() not in path.read_bytes(), path


async def test_what_a_tools_file_says_when_it_is_loaded_is_redacted_as_well(world: World) -> None:
    code = 'import os\n\ndef f(key: str = os.environ["AN_API_KEY"]) -> str:\n    """Do."""\n    return key\n'
    world.project.write("loads/tools.py", code)
    agent = world.project.agent("loads", tools=[{"python": "tools.py:f"}], permissions={"secrets": ["AN_API_KEY"]})
    assert await world.call(agent, ("f", {}), AN_API_KEY=SECRET) == ["[redacted]"]
    (tool,) = world.project.model.requests[0].json["tools"]
    assert tool["function"]["parameters"]["properties"]["key"]["default"] == "[redacted]"
    world.project.write("loads/tools.py", code + 'raise KeyError("bad " + os.environ["AN_API_KEY"])\n')
    done = await world.project.command("run", agent, "go", "--json", variables={"AN_API_KEY": SECRET})
    assert done.error["code"] == "AF601", done
    assert SECRET not in done.out + done.err


async def test_runs_with_other_secrets_have_another_worker(world: World) -> None:
    agent = world.agent(permissions={"secrets": ["AN_API_KEY"]})
    use = ("key", {"how": "returns"})
    await world.call(agent, use, AN_API_KEY=SECRET)
    await world.call(agent, use, AN_API_KEY=SECRET)
    assert len(await world.project.workers("tools")) == 1
    ((found,)) = await world.call(agent, use, AN_API_KEY=OTHER + "-longer")
    assert found["length"] == len(OTHER) + 7
    assert len(await world.project.workers("tools")) == 2


async def test_a_secret_that_is_not_set_is_named_before_anything_starts(world: World) -> None:
    agent = world.agent(permissions={"secrets": ["AN_API_KEY"]})
    for variables in ({}, {"AN_API_KEY": ""}):
        done = await world.project.command("run", agent, "go", variables=variables)
        assert (done.code, done.out) == (1, "")
        assert "error[AF614]: `permissions.secrets` of the agent `agent` names a variable" in done.err
        assert "hint: Set it in the shell that you run `agentforge` from: `export AN_API_KEY=...`" in done.err
    assert (await world.project.command("runs", "list", "--json")).objects == []


async def test_variables_that_no_agent_names_stay_with_the_client(world: World) -> None:
    agent = world.agent(permissions={"secrets": ["AN_API_KEY"]})
    (found,) = await world.call(agent, ("key", {"how": "returns"}), AN_API_KEY=SECRET, ANOTHER_API_KEY=OTHER)
    assert "ANOTHER_API_KEY" not in found["names"]


async def test_the_python_client_sends_secrets_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = world.agent(permissions={"secrets": ["AN_API_KEY"]})
    monkeypatch.setenv("AN_API_KEY", SECRET)
    for name, value in world.project.variables.items():
        monkeypatch.setenv(name, value)
    model = world.model(("key", {"how": "returns"}))[1]
    async with Forge(world.project.root) as forge:
        monkeypatch.chdir(world.project.root)
        result = await forge.run(agent, "go", model=model)
        assert result.tool_calls[0]["result"]["length"] == len(SECRET)
        monkeypatch.delenv("AN_API_KEY")
        with pytest.raises(AgentForgeError) as caught:
            await forge.run(agent, "go", model=model)
        assert caught.value.code == "AF614"


# ---- secrets of runs that wait, or whose host is gone


async def kill_host(project: Project) -> None:
    pid = (await project.host())["pid"]
    os.kill(pid, signal.SIGKILL)
    await gone(pid)


async def start_waiting(world: World) -> str:
    agent = world.agent(permissions={"secrets": ["AN_API_KEY"]}, approval="always")
    world.project.variables["AN_API_KEY"] = SECRET
    run = await world.project.detached(agent, "go", *world.model(("key", {"how": "returns"})))
    assert (await world.project.ended(run))["status"] == "waiting"
    del world.project.variables["AN_API_KEY"]
    return run


async def answer(world: World, run: str, **variables: str) -> Any:
    return await world.project.command("runs", "answer", run, "approve", "--json", variables=variables)


async def test_who_answers_need_not_have_the_secret_as_long_as_the_host_lives(world: World) -> None:
    run = await start_waiting(world)
    await answer(world, run)
    result = await world.project.ended(run)
    assert result["status"] == "succeeded", result
    assert result["tool_calls"][0]["result"]["length"] == len(SECRET)


async def test_after_the_hosts_end_who_answers_has_to_have_the_secret(world: World) -> None:
    run = await start_waiting(world)
    await kill_host(world.project)
    done = await answer(world, run)
    assert done.code == 1
    assert "error[AF614]" in done.err
    assert (await world.project.ended(run))["status"] == "waiting", "the answer was not taken"
    await answer(world, run, AN_API_KEY=OTHER + "-longer")
    result = await world.project.ended(run)
    assert result["status"] == "succeeded", result
    assert result["tool_calls"][0]["result"]["length"] == len(OTHER) + 7


@pytest.mark.parametrize("command", [["--all"], []])
async def test_a_run_that_was_left_goes_on_with_a_client_that_has_its_secret(world: World, command: list[str]) -> None:
    agent = world.agent(permissions={"secrets": ["AN_API_KEY"]})
    world.project.variables["AN_API_KEY"] = SECRET
    slow = world.project.model.script(
        "slow", Step(calls=[CalledTool("key", {"how": "returns"})], delay_s=3), Step(text="ok"), per="conversation"
    )
    run = await world.project.detached(agent, "go", "--model", f"openai:{slow}")
    await world.project.until(run, "model.requested")
    await kill_host(world.project)
    del world.project.variables["AN_API_KEY"]
    done = await world.project.command("runs", "resume", *(command or [run]))
    assert done.code == 1
    assert "error[AF614]" in done.err
    given = {"AN_API_KEY": SECRET}
    done = await world.project.command("runs", "resume", *(command or [run]), variables=given)
    result = await world.project.ended(run)
    assert result["status"] == "succeeded", (result, done)
    assert result["tool_calls"][0]["result"]["length"] == len(SECRET)


async def test_a_replay_offline_needs_no_secret(world: World) -> None:
    agent = world.agent(permissions={"secrets": ["AN_API_KEY"], "read": ["data"]})
    model = world.model(("key", {"how": "returns"}))
    result = await world.project.run(agent, "go", *model, variables={"AN_API_KEY": SECRET})
    await world.project.stop()
    (world.data / "table.csv").unlink()
    done = await world.project.command("runs", "replay", result["run_id"], "--json")
    assert done.result["same"] is True


# ---- native agents, whose tools are within them


NATIVE = """
import os


async def agent(input, ctx):
    print("the key is", os.environ["AN_API_KEY"])
    seen = open(input["path"]).read()
    return {"length": len(os.environ["AN_API_KEY"]), "key": os.environ["AN_API_KEY"], "seen": seen}
"""


async def test_a_native_agent_has_the_permissions_itself(world: World) -> None:
    world.project.write("native/code.py", NATIVE)
    agent = world.project.agent(
        "native",
        native={"framework": "python", "entrypoint": "code:agent"},
        permissions={"read": ["data"], "secrets": ["AN_API_KEY"]},
    )
    world.project.variables["AN_API_KEY"] = SECRET
    await world.project.command("runs", "list")
    given = {"agent": agent, "input": {"path": str(world.data / "table.csv")}, "variables": {}}
    async with world.project.connection() as connection:
        with pytest.raises(AgentForgeError) as caught:
            await connection.post("/v1/runs", given)
        assert caught.value.details["variables"] == ["AN_API_KEY"]
        run = (await connection.post("/v1/runs", {**given, "variables": {"AN_API_KEY": SECRET}}))["run_id"]
    result = await world.project.ended(run)
    assert result["status"] == "succeeded", result
    assert result["output"] == {"length": len(SECRET), "key": "[redacted]", "seen": "1,2,3"}
    logs = [event["data"]["text"] for event in await world.project.events(run) if event["kind"] == "log.written"]
    assert logs == ["the key is [redacted]"]
    for path in world.kept():
        assert SECRET.encode() not in path.read_bytes(), path
