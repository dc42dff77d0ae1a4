"""Tools that run code which a model wrote: in a sandbox of their own, asked for where the agent says so."""

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from agentforge_conformance.scripted_model import CalledTool, Step

from .durable_world import FRAMEWORKS
from .project_world import Project

pytestmark = pytest.mark.feature("AF-148")
Value = dict[str, Any]


class Coder:
    """An agent with a code tool, and models that have it run one piece of code after the other."""

    def __init__(self, project: Project) -> None:
        self.project = project

    def agent(self, folder: str = "coder", code: str | None = "allow", *, sandbox: str = "", **tool: Any) -> str:
        """Write the agent; `tool` are keys of its tool."""
        keys: dict[str, Any] = {} if code is None else {"permissions": {"code": code}}
        if sandbox:
            keys["sandbox"] = sandbox
        return self.project.agent(folder, tools=[{"code": "python", **tool}], **keys)

    def model(self, *codes: str, name: str = "run_python", then: str = "so: {tool}") -> tuple[str, str]:
        """Return the options that name a model which has these run."""
        steps = [Step(calls=[CalledTool(name, {"code": code})]) for code in codes]
        known_by = hashlib.sha256(repr((codes, name, then)).encode()).hexdigest()[:12]
        script = self.project.model.script(f"code-{known_by}", *steps, Step(text=then), per="conversation")
        return "--model", f"openai:{script}"

    async def run(self, *codes: str, agent: str = "", on: str = "python") -> list[Value]:
        """Return what each piece of code came to."""
        result = await self.project.run(agent or self.agent(), "go", "--on", on, *self.model(*codes))
        assert result["status"] == "succeeded", result
        return [call.get("result", call.get("error")) for call in result["tool_calls"]]

    async def start(self, *codes: str, agent: str, on: str = "python") -> str:
        """Start a run and return its id."""
        return await self.project.detached(agent, "go", "--on", on, *self.model(*codes))

    async def answer(self, run: str, decision: str, value: Any = None) -> None:
        """Answer what a run waits for."""
        body = {"decision": decision, "value": value, "variables": self.project.variables}
        async with self.project.connection() as connection:
            await connection.post(f"/v1/runs/{run}/answer", body)

    def workspace(self, run: str) -> Path:
        """Return a run's workspace."""
        (found,) = self.project.root.glob(f".agentforge/workspaces/*/{run}")
        return found

    async def waits(self, run: str, kind: str) -> Value:
        """Return the one interrupt that a run waits for."""
        found = await self.project.ended(run)
        assert found["status"] == "waiting", found
        (interrupt,) = found["interrupts"]
        assert interrupt["kind"] == kind
        return dict(interrupt)


@pytest.fixture
async def coder(project: Project) -> Coder:
    return Coder(project)


@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_a_model_has_its_code_run_on_every_framework(coder: Coder, framework: str) -> None:
    first, second = await coder.run(
        "total = 40 + 2\nopen('total.txt', 'w').write(str(total))\nprint('saved')\ntotal",
        "open('total.txt').read(), 'total' in globals()",
        on=framework,
    )
    assert first == {"stdout": "saved\n", "stderr": "", "result": "42", "error": None, "files": ["total.txt"]}
    assert second["result"] == "('42', False)", "files last between the calls of a run, variables do not"
    assert "total.txt" in json.dumps(coder.project.model.requests[1].json["messages"]), "the model is told what came"


async def test_the_model_is_told_what_the_tool_does(coder: Coder) -> None:
    await coder.run("1", agent=coder.agent(name="run_python"))
    (tool,) = coder.project.model.requests[0].json["tools"]
    assert tool["function"]["name"] == "run_python"
    assert "There is no network" in tool["function"]["description"]
    assert tool["function"]["parameters"]["required"] == ["code"]


async def test_a_tool_has_the_name_that_it_is_given(coder: Coder) -> None:
    result = await coder.project.run(coder.agent(name="calculate"), "go", *coder.model("6 * 7", name="calculate"))
    assert [(call["name"], call["result"]["result"]) for call in result["tool_calls"]] == [("calculate", "42")]


async def test_packages_of_the_tool_environment_are_there(coder: Coder) -> None:
    coder.project.write("agentforge.toml", '[tools]\nrequirements = ["iniconfig"]\n')
    (told,) = await coder.run("import iniconfig, sys\niniconfig.__name__, 'site-packages' in iniconfig.__file__")
    assert told["result"] == "('iniconfig', True)"


async def test_what_goes_wrong_in_the_code_goes_to_the_model_and_the_run_goes_on(coder: Coder) -> None:
    told = await coder.run(
        "if", "1 / 0", "import sys\nsys.exit(3)", "import os\nprint('x')\nos._exit(3)", "while True print()", "'fine'"
    )
    assert [each["error"] and each["error"]["type"] for each in told] == [
        "SyntaxError", "ZeroDivisionError", "SystemExit", "ProcessEnded", "SyntaxError", None,
    ]  # fmt: skip


async def test_wrong_arguments_are_told_to_the_model(coder: Coder) -> None:
    project = coder.project
    steps = [Step(calls=[CalledTool("run_python", given)]) for given in ({}, {"kode": "1"}, {"code": "1", "more": 2})]
    model = project.model.script("wrong", *steps, Step(text="done"), per="conversation")
    result = await project.run(coder.agent(), "go", "--model", f"openai:{model}")
    assert result["status"] == "succeeded", result
    assert [call["error"] for call in result["tool_calls"]] == [
        "`code` of `run_python` is missing: expected text",
        "`run_python` has no parameter `kode` (it has: `code`)",
        "`run_python` has no parameter `more` (it has: `code`)",
    ]


SEEN = """
import os, socket

def tried(what):
    try:
        return what()
    except Exception as error:
        return type(error).__name__

def connect(family, address):
    with socket.socket(family) as opened:
        opened.settimeout(2)
        return opened.connect(address)

{
    "variables": sorted(name for name in os.environ if not name.startswith(("PYTHON", "XDG_"))),
    "home": os.listdir(os.environ["HOME"]),
    "scratch": os.listdir("/tmp"),
    "files": os.listdir("."),
    "beside": tried(lambda: os.listdir("..")),
    "project": tried(lambda: open(ROOT + "/coder/agent.yaml").read()),
    "state": tried(lambda: os.listdir(ROOT + "/.agentforge/versions")),
    "shadow": tried(lambda: open("/etc/shadow").read()),
    "written": tried(lambda: open("/usr/x", "w")),
    "own program": tried(lambda: open(__import__("sys").orig_argv[2], "a")),
    "environment": tried(lambda: open(__import__("sys").prefix + "/x", "w")),
    "network": tried(lambda: connect(socket.AF_INET, ("1.1.1.1", 443))),
    "host": tried(lambda: connect(socket.AF_INET, ("127.0.0.1", PORT))),
    "name": tried(lambda: socket.getaddrinfo("example.com", 443)),
    "processes": sorted(int(name) for name in os.listdir("/proc") if name.isdigit())[-1] < 50,
    "descriptors": [os.readlink("/proc/self/fd/%d" % n).partition(":")[0] for n in range(200)
                    if os.path.exists("/proc/self/fd/%d" % n)],
    "user": os.getuid(),
    "parent": tried(lambda: open("/proc/%d/environ" % os.getppid()).read().count("KEY")),
}
"""


async def test_code_sees_its_workspace_and_nothing_else(coder: Coder) -> None:
    project = coder.project
    project.variables["A_SECRET_KEY"] = "of-the-caller-0123456789"
    agent = project.agent(
        "coder",
        tools=[{"code": "python"}],
        network=["example.com:443"],
        permissions={"code": "allow", "read": ["coder"], "network": ["example.com:443"], "secrets": ["A_SECRET_KEY"]},
    )
    port = project.model.base_url.split(":")[2].split("/")[0]
    code = f"ROOT, PORT = {str(project.root)!r}, {port}\n{SEEN}"
    result = await project.run(agent, "go", *coder.model(code))
    assert result["status"] == "succeeded", result
    (call,) = result["tool_calls"]
    seen = eval(call["result"]["result"])
    assert seen["variables"] == ["DO_NOT_TRACK", "HOME", "LANG", "NO_PROXY", "PATH", "PWD", "TMPDIR", "TZ"]
    assert (seen["home"], seen["files"]) == ([], [])
    assert set(seen["scratch"]) <= {*_above(project.root, "/tmp"), *_above(Path(__file__), "/tmp")}
    assert seen["beside"] == [result["run_id"]], "of other runs there is not even a name"
    for what in ("project", "state", "shadow", "name", "host", "network"):
        assert seen[what] in (
            "FileNotFoundError",
            "PermissionError",
            "gaierror",
            "OSError",
            "ConnectionRefusedError",
        ), what
    for what in ("written", "own program", "environment"):
        assert seen[what] in ("OSError", "PermissionError"), what
    assert seen["descriptors"] == ["/dev/null", "pipe", "pipe", "pipe"]
    assert (seen["processes"], seen["user"], seen["parent"]) == (True, 1000, 0)


def _above(path: Path, folder: str) -> list[str]:
    """Return what has to be in a folder for a path to be there."""
    return [path.relative_to(folder).parts[0]] if path.is_relative_to(folder) else []


async def test_runs_do_not_see_each_others_files(coder: Coder) -> None:
    agent = coder.agent()
    await coder.run("open('mine', 'w').write('x')", agent=agent)
    (told,) = await coder.run("import os\nos.listdir('.')", agent=agent)
    assert told["result"] == "[]"


# ---- permission


@pytest.mark.parametrize("code", [None, "deny"])
async def test_without_permission_the_run_does_not_start(coder: Coder, code: str | None) -> None:
    done = await coder.project.command("run", coder.agent(code=code), "go", *coder.model("1"))
    assert (done.code, done.out) == (1, "")
    assert "error[AF611]: " in done.err
    assert "the tool `run_python` of the agent `coder` runs code that the model writes" in done.err
    assert "hint: Write `permissions: {code: ask}` into the agent file" in done.err
    assert coder.project.model.requests == []
    assert (await coder.project.command("runs", "list", "--json")).objects == []


@pytest.mark.parametrize("code", [None, "deny", "ask", "allow"])
async def test_without_a_sandbox_there_is_no_code(coder: Coder, code: str | None) -> None:
    done = await coder.project.command("run", coder.agent(code=code, sandbox="none"), "go", "--json", *coder.model("1"))
    assert done.code == 1
    assert done.error["code"] == "AF612"
    assert "Remove `sandbox: none`" in done.error["hint"]


async def test_without_a_sandbox_in_the_project_there_is_no_code(coder: Coder) -> None:
    coder.project.write("agentforge.toml", '[sandbox]\nlevel = "none"\n')
    done = await coder.project.command("run", coder.agent(), "go", "--json", *coder.model("1"))
    assert (done.code, done.error["code"]) == (1, "AF612")


async def test_a_build_is_refused_as_well_before_it_begins(coder: Coder) -> None:
    body = {"agent": coder.agent(code="deny"), "on": "python", "variables": coder.project.variables}
    await coder.project.command("runs", "list")
    async with coder.project.connection() as connection:
        ((kind, data),) = [event async for event in connection.stream("POST", "/v1/environments", body)]
    assert (kind, data["code"]) == ("error", "AF611")


MARK = "import os\nopen('count', 'a').write('x')\nos.stat('count').st_size"


@pytest.mark.parametrize(
    "keys", [{"code": "ask"}, {"code": "allow", "approval": "always"}, {"code": "ask", "approval": "always"}]
)
@pytest.mark.parametrize("decision", ["approve", "reject"])
async def test_code_that_is_asked_for_waits_for_a_human_once(coder: Coder, keys: Value, decision: str) -> None:
    run = await coder.start(MARK, MARK, agent=coder.agent(**keys))
    first = await coder.waits(run, "approval")
    assert first["data"] == {"name": "run_python", "arguments": {"code": MARK}}
    assert list(coder.workspace(run).iterdir()) == []
    await coder.answer(run, decision, "not today" if decision == "reject" else None)
    await coder.waits(run, "approval")  # each call by itself
    await coder.answer(run, decision)
    result = await coder.project.ended(run)
    assert result["status"] == "succeeded", result
    if decision == "approve":
        assert [call["result"]["result"] for call in result["tool_calls"]] == ["1", "2"]
    else:
        assert result["tool_calls"][0]["error"] == "the call of the tool `run_python` was rejected: not today"
        assert list(coder.workspace(run).iterdir()) == []


async def test_the_command_shows_the_code_that_it_asks_for(coder: Coder) -> None:
    code = "import os\nos.remove('report')  # \x1b[8m"
    done = await coder.project.command("run", coder.agent(code="ask"), "go", *coder.model(code))
    assert done.code == 1
    assert "  code:\n    import os\n    os.remove('report')  # \\x1b[8m\n" in done.err


# ---- time and force


async def test_code_that_takes_too_long_is_stopped_and_the_model_told(coder: Coder) -> None:
    endless = "print('so far')\nwhile True: pass"
    first, second = await coder.run(endless, "'after'", agent=coder.agent(timeout_s=2))
    expected = "the code given to `run_python` did not end within 2 s and was stopped; it had printed: so far\n"
    assert first == expected
    assert second["result"] == "'after'"


async def test_code_that_takes_too_long_ends_the_run_where_the_agent_says_so(coder: Coder) -> None:
    agent = coder.agent(timeout_s=1, on_error="fail")
    result = await coder.project.run(agent, "go", *coder.model("while True: pass"))
    assert (result["status"], result["error"]["code"], result["error"]["origin"]) == ("failed", "AF605", "tool")


HOSTILE = {
    "prints a gigabyte": "import os\nfor _ in range(1024): os.write(1, bytes(1 << 20))",
    "forks": "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass",
    "kills all": "import os, signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nos.kill(-1, 9)",
    "kills its parent": "import os\nos.kill(os.getppid(), 9)",
    "stops its parent": "import os, signal, time\nos.kill(os.getppid(), signal.SIGSTOP)\ntime.sleep(60)",
    "floods the reporter": "import os\nfor n in range(3, 40):\n  try:\n    while True: os.write(n, b'x' * 65536)\n"
    "  except OSError: pass",
    "forges a report": "import os, json\nreport = json.dumps({'ended': 'done', 'stdout': 'forged'}).encode()\n"
    "for n in (1, 2, 0):\n  try: os.write(os.open('/proc/%d/fd/%d' % (os.getppid(), n), os.O_WRONLY), report)\n"
    "  except OSError: pass",
    "fills the memory": "kept = []\nwhile True: kept.append(bytearray(1 << 26))",
    "fills the disk": "import os\nn = 0\nwhile True:\n  n += 1\n  open('/tmp/%d' % n, 'wb').write(bytes(1 << 26))",
    "deletes the workspace": "import os, shutil\nshutil.rmtree(os.getcwd(), ignore_errors=True)\nos.listdir('/')",
    "leaves a daemon": "import os\nif os.fork() == 0:\n  os.setsid()\n  while os.fork() == 0: pass\n  os._exit(0)",
    "a huge repr": "'x' * (1 << 30)",
    "a repr for ever": "class A:\n  def __repr__(self):\n    while True: pass\nA()",
    "a deep value": "a = []\nfor _ in range(10**6): a = [a]\nb = repr(a)",
    "exits in the end": "import atexit, os\natexit.register(os._exit, 9)\n'the end'",
    "threads for ever": "import threading, time\nthreading.Thread(target=lambda: time.sleep(999)).start()",
}  # fmt: skip


@pytest.mark.timeout(180)
async def test_hostile_code_harms_neither_its_run_nor_the_host(coder: Coder) -> None:
    agent = coder.project.agent(
        "coder",
        tools=[{"code": "python", "timeout_s": 3}],
        permissions={"code": "allow"},
        limits={"memory_mib": 512, "processes": 64, "scratch_mib": 64},
    )
    codes = [each for code in HOSTILE.values() for each in (code, "open('alive', 'a').write('x')\n'alive'")]
    told = await coder.run(*codes, agent=agent)
    assert [each["result"] for each in told[1::2]] == ["'alive'"] * len(HOSTILE)
    hostile = dict(zip(HOSTILE, told[::2], strict=True))
    assert "bytes left out" in hostile["prints a gigabyte"]["stdout"] or "did not end" in hostile["prints a gigabyte"]
    assert "`processes: 64`" in hostile["forks"] or "did not end within 3 s" in hostile["forks"]
    for case in ("stops its parent", "a repr for ever", "threads for ever"):
        assert "did not end within 3 s" in hostile[case], case
    assert "did not say how its code ended: (killed by SIGKILL)" in hostile["kills its parent"]
    assert "Memory" in str(hostile["fills the memory"]) or "`memory_mib: 512`" in hostile["fills the memory"]
    assert "No space left" in str(hostile["fills the disk"])
    assert "forged" not in json.dumps(hostile["forges a report"])
    assert hostile["exits in the end"]["result"] == "'the end'"
    assert hostile["leaves a daemon"]["error"] is None
    async with asyncio.timeout(20):
        while [each for each in coder.project.processes() if " code " in f" {' '.join(each.cmdline())} "]:
            await asyncio.sleep(0.05)


async def test_a_workspace_that_has_become_a_link_is_not_followed(coder: Coder) -> None:
    """An ordinary user's workers can put links beside their workspaces; here the test does."""
    outside = coder.project.root / "outside"
    outside.mkdir()
    run = await coder.start(MARK, MARK, agent=coder.agent(code="ask"))
    await coder.waits(run, "approval")
    workspace = coder.workspace(run)
    workspace.rmdir()
    workspace.symlink_to(outside)
    await coder.answer(run, "approve")
    result = await coder.project.ended(run)
    assert result["status"] == "failed", result
    assert list(outside.iterdir()) == []


# ---- durability


async def until(path: Path) -> None:
    async with asyncio.timeout(60):
        while not path.exists():
            await asyncio.sleep(0.02)


GATED = """
import os, time
open("began", "a").write("x")
while not os.path.exists("go"):
    time.sleep(0.01)
os.stat("began").st_size
"""


async def kill_host(project: Project) -> None:
    import os
    import signal

    from .project_world import gone

    pid = (await project.host())["pid"]
    os.kill(pid, signal.SIGKILL)
    await gone(pid)


@pytest.mark.parametrize("idempotent", [True, False])
async def test_code_that_was_under_way_at_a_crash_is_not_run_again_unless_it_may_be(
    coder: Coder, idempotent: bool
) -> None:
    agent = coder.agent(idempotent=idempotent)
    run = await coder.start(MARK, GATED, agent=agent)
    await until(coder.project.root / ".agentforge/workspaces")
    async with asyncio.timeout(60):
        while not list(coder.project.root.glob(".agentforge/workspaces/*/*/began")):
            await asyncio.sleep(0.02)
    await kill_host(coder.project)
    workspace = coder.workspace(run)
    (workspace / "go").touch()
    await coder.project.command("runs", "list", "--json")
    await coder.project.command("runs", "resume", "--all", "--detach")
    if not idempotent:
        interrupt = await coder.waits(run, "tool")
        assert interrupt["data"]["name"] == "run_python"
        assert (workspace / "began").read_text() == "x"
        await coder.answer(run, "retry")
    result = await coder.project.ended(run)
    assert result["status"] == "succeeded", result
    assert [call["result"]["result"] for call in result["tool_calls"]] == ["1", "2"]
    assert (workspace / "count").read_text() == "x", "what had ended before the crash is not run again"
    assert result["replayed_effects"] >= 2


async def test_a_host_that_stops_ends_the_code(coder: Coder) -> None:
    run = await coder.start(GATED, agent=coder.agent())
    async with asyncio.timeout(60):
        while not list(coder.project.root.glob(".agentforge/workspaces/*/*/began")):
            await asyncio.sleep(0.02)
    await coder.project.stop(at_once=True)  # and sees that no process is left
    await coder.project.command("runs", "list", "--json")
    await coder.project.command("runs", "resume", "--all", "--detach")
    await coder.waits(run, "tool")


async def test_a_run_that_is_cancelled_ends_its_code(coder: Coder) -> None:
    run = await coder.start(GATED, agent=coder.agent())
    async with asyncio.timeout(60):
        while not list(coder.project.root.glob(".agentforge/workspaces/*/*/began")):
            await asyncio.sleep(0.02)
    await coder.project.command("runs", "cancel", run)
    assert (await coder.project.ended(run))["status"] == "cancelled"
    async with asyncio.timeout(20):
        while [each for each in coder.project.processes() if "--inode" in each.cmdline()]:
            await asyncio.sleep(0.05)


async def test_a_replay_runs_no_code(coder: Coder) -> None:
    result = await coder.project.run(coder.agent(), "go", *coder.model(MARK, "1 / 0"))
    done = await coder.project.command("runs", "replay", result["run_id"], "--json")
    assert done.result["same"] is True
    assert (coder.workspace(result["run_id"]) / "count").read_text() == "x"
