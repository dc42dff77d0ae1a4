"""Real worker processes under every Python that the guest supports and this machine has."""

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from agentforge.errors.workers import HandshakeFailed, WorkerDied, WorkerSilent, WorkerStartFailed
from agentforge.workers import worker_zip
from agentforge.workers.launch import launch
from agentforge_worker.wire import PROTOCOL_VERSION, ErrorCode, Method, Peer, RpcError, receive_preamble

from .worker_world import Host, portable, version

ADAPTER = """
import asyncio, os, subprocess, sys, threading, time
from agentforge_worker.adapter import Adapter, AgentCard, Cancelled, Probe, Result, current_run

sys.path.insert(0, os.environ["FRAMEWORK"])  # stands for the environment's site-packages
import framework

MEETING = threading.Barrier(2)


class Loop(Adapter):
    def probe(self):
        return Probe("7.1", {"python": list(sys.version_info[:2])})

    def build(self, spec, ctx):
        if spec.instructions == "broken":
            raise ValueError("can't build this")
        if spec.instructions == "exit":
            sys.exit(5)
        ctx.warn("a warning of the build")
        return spec

    def describe(self, agent):
        return AgentCard(getattr(agent, "name", "native"))

    def close(self, agent):
        print("closed", agent.name)

    async def run(self, agent, request, ctx):
        what = request.input
        if agent is not None and callable(agent):
            return Result(agent(what))
        if what == "output":
            print("one")
            sys.stderr.write("two\\n")
            await asyncio.sleep(0)
            print("three\\nfour")
            print("five", end="")
        elif what == "interleaved":
            for part in ("a", "b", "c"):
                sys.stdout.write(part)
                await asyncio.sleep(0.001)
        elif what == "facts":
            return Result({
                "path": sys.path, "cwd": os.getcwd(), "environ": dict(os.environ),
                "modules": [name for name in sys.modules if name.split(".")[0] == "agentforge"],
                "stdin": sys.stdin.read() + os.read(0, 10).decode(),
            })
        elif what == "tool":
            return Result(await ctx.call_tool("double", {"n": 21}))
        elif what == "steps":
            with ctx.step("think", kind="model"):
                ctx.emit("message.added", {"role": "assistant", "content": "hm"})
        elif what == "ask for input":
            return Result(input("your name? "))
        elif what == "adapter fails":
            raise ValueError("my own")
        elif what == "framework fails":
            framework.fail()
        elif what == "adapter misuses the standard library":
            import json
            json.loads("{")
        elif what == "exit":
            framework.leave()
        elif what == "die":
            os._exit(7)
        elif what == "hang":
            ctx.emit("step.started", {"step": 1, "name": "hang"})
            await asyncio.sleep(3600)
        elif what == "block":
            open(os.path.join(ctx.workspace, "blocked"), "w").close()
            time.sleep(3600)
        elif what == "unsendable":
            return Result(float("nan"))
        return Result(what, [], {"kept": 1})


class Alone(Loop):
    concurrent = False

    async def run(self, agent, request, ctx):
        if request.input == "native":
            os.write(1, b"native\\n")
            sys.stdout.buffer.write(b"bytes\\n")
            subprocess.call([sys.executable, "-c", "print('child')"])
            child = os.fork()
            if not child:
                print("forked")
                os._exit(0)
            os.waitpid(child, 0)
            os.write(2, b"unfinished")
            return Result(os.environ["OPENAI_API_KEY"])
        return await super().run(agent, request, ctx)


class Blocking(Adapter):
    def probe(self):
        return Probe("7.1")

    def build(self, spec, ctx):
        return spec

    def describe(self, agent):
        return AgentCard(agent.name)

    def run(self, agent, request, ctx):
        if request.input == "meet":
            MEETING.wait(30)
            return Result(threading.current_thread().name)
        if request.input == "tool":
            return Result(ctx.wait(ctx.call_tool("double", {"n": 4})))
        if request.input == "exit":
            sys.exit(4)
        if request.input == "loop":
            print("looping")
            while True:
                ctx.check()
                time.sleep(0.001)
        print("from a thread")
        threading.Thread(target=lambda: print("from another")).start()
        return Result(current_run().run_id == ctx.run_id)
"""

FRAMEWORK = """
import sys

def fail():
    deeper()

def deeper():
    raise LookupError("no such \\u00fcnicorn")

def leave():
    sys.exit(3)
"""


@pytest.fixture
def host(tmp_path: Path) -> Host:
    for name, text in (("adapter/adapter.py", ADAPTER), ("site/framework.py", FRAMEWORK)):
        path = tmp_path / name
        path.parent.mkdir()
        path.write_text(text)
    return Host(tmp_path)


def failure(caught: pytest.ExceptionInfo[RpcError]) -> dict[str, Any]:
    assert caught.value.code == ErrorCode.FAILED
    data: dict[str, Any] = caught.value.data
    return data


# ---- on every Python


async def test_a_worker_introduces_itself(host: Host, python: Path) -> None:
    async with host.worker(python) as worker:
        assert worker.hello["protocol_version"] == PROTOCOL_VERSION
        assert worker.hello["probe"]["version"] == "7.1"
        assert tuple(worker.hello["probe"]["details"]["python"]) == version(python)
        assert 0 < worker.hello["worker"]["pid"] < worker.pid, "a process id of its sandbox"
        assert worker.hello["capabilities"]["concurrent"] is True
        assert worker.door is not None
        opened = await worker.call(Method.AGENT_OPEN, portable())
        assert opened["card"]["name"] == "tester"
        assert opened["warnings"] == ["a warning of the build"]


async def test_a_run_gets_its_answer_tools_and_events(host: Host, python: Path) -> None:
    async with host.worker(python) as worker:
        answer = await host.run(worker, {"any": ["json", 1]})
        assert answer["output"] == {"any": ["json", 1]}
        assert answer["state"] == {"kept": 1}
        assert answer["metrics"]["cpu_ms"] >= 0
        assert (await host.run(worker, "tool"))["output"] == 42
        await host.run(worker, "steps")
        assert [event["kind"] for event in host.events] == ["step.started", "message.added", "step.finished"]
        assert host.events[0]["data"] == {"step": 1, "name": "think", "kind": "model"}


async def test_output_comes_with_its_run_its_stream_and_in_order_before_the_answer(host: Host, python: Path) -> None:
    async with host.worker(python) as worker:
        await host.run(worker, "output", "r7")
        assert host.logs == [
            ("r7", "stdout", "one"),
            ("r7", "stderr", "two"),
            ("r7", "stdout", "three"),
            ("r7", "stdout", "four"),
            ("r7", "stdout", "five"),
        ]


async def test_native_writes_and_child_processes_are_captured_for_the_run_that_is_alone(
    host: Host, python: Path
) -> None:
    async with host.worker(python, "Alone") as worker:
        answer = await host.run(worker, "native", "r7")
        assert sorted(host.logs) == [
            ("r7", "stderr", "unfinished"),
            ("r7", "stdout", "bytes"),
            ("r7", "stdout", "child"),
            ("r7", "stdout", "forked"),
            ("r7", "stdout", "native"),
        ]
        assert answer["output"] == "token-r7"


async def test_a_failure_of_the_framework_keeps_its_origin_and_traceback(host: Host, python: Path) -> None:
    async with host.worker(python) as worker:
        with pytest.raises(RpcError) as caught:
            await host.run(worker, "framework fails")
        error = failure(caught)
        assert (error["code"], error["origin"]) == ("AF420", "framework")
        assert "LookupError" in error["message"]
        assert error["details"]["exception"] == "builtins.LookupError"
        assert 'framework.py", line' in error["details"]["traceback"]
        assert "in deeper" in error["details"]["traceback"]
        assert "no such ünicorn" in error["details"]["traceback"]


async def test_a_failure_of_the_adapter_is_told_from_the_frameworks(host: Host, python: Path) -> None:
    async with host.worker(python) as worker:
        for what in ("adapter fails", "adapter misuses the standard library"):
            with pytest.raises(RpcError) as caught:
                await host.run(worker, what)
            error = failure(caught)
            assert (error["code"], error["origin"]) == ("AF421", "adapter")
            assert "adapter.py" in error["details"]["traceback"]


async def test_a_failure_of_the_users_own_agent_is_the_users(host: Host, python: Path) -> None:
    root = host.folder / "project"
    root.mkdir()
    (root / "mine.py").write_text("def agent(x):\n    import json\n    return json.loads('no json' + str(x))\n")
    native = {"agent_id": "n", "source": {"root": str(root), "module": "mine", "attribute": "agent"}}
    async with host.worker(python) as worker:
        with pytest.raises(RpcError) as caught:
            await host.run(worker, 1, agent=native)
        error = failure(caught)
        assert (error["code"], error["origin"]) == ("AF422", "user")
        assert "mine.py" in error["details"]["traceback"]


async def test_the_framework_sees_a_clean_path_a_constructed_environment_and_no_stdin(
    host: Host, python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "of the host")
    monkeypatch.setenv("PYTHONPATH", str(host.folder))
    async with host.worker(python, "Alone") as worker:
        facts = (await host.run(worker, "facts"))["output"]
    assert facts["path"][0] == str(host.folder / "site")
    assert not [entry for entry in facts["path"][1:] if str(host.folder) in entry or "pyz" in entry or not entry]
    assert facts["modules"] == []
    assert facts["stdin"] == ""
    assert facts["cwd"] == str(host.folder / "workspaces" / "runs" / "r1")
    environ = facts["environ"]
    assert "SECRET" not in environ
    assert "PYTHONPATH" not in environ
    assert environ["GIVEN"] == "yes"
    assert environ["PYTHONHASHSEED"] == "0"
    assert (environ["HOME"], environ["TMPDIR"]) == ("/home/agent", "/tmp")
    assert set(environ) <= {
        *("PATH", "HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "LANG", "LC_CTYPE", "TZ"),
        *("PYTHONHASHSEED", "PYTHONDONTWRITEBYTECODE", "PYTHONNOUSERSITE", "PYTHONUTF8", "NO_PROXY", "DO_NOT_TRACK"),
        *("GIVEN", "FRAMEWORK", "OPENAI_BASE_URL", "OPENAI_API_KEY", "PWD"),
    }


async def test_a_program_that_asks_at_the_terminal_finds_its_end(host: Host, python: Path) -> None:
    async with host.worker(python) as worker:
        with pytest.raises(RpcError, match="EOFError"):
            await host.run(worker, "ask for input")


async def test_a_cancelled_run_ends_and_the_worker_goes_on(host: Host, python: Path) -> None:
    async with host.worker(python) as worker:
        run = asyncio.create_task(host.run(worker, "hang", "r7"))
        await host.hears(lambda: bool(host.events))
        worker.notify(Method.RUN_CANCEL, {"run_id": "r7"})
        with pytest.raises(RpcError) as caught:
            await asyncio.wait_for(run, 2)
        assert caught.value.code == ErrorCode.CANCELLED
        assert (await host.run(worker, "tool"))["output"] == 42


async def test_blocking_adapters_run_in_threads_side_by_side(host: Host, python: Path) -> None:
    async with host.worker(python, "Blocking") as worker:
        answers = await asyncio.gather(host.run(worker, "meet", "r1"), host.run(worker, "meet", "r2"))
        assert {answer["output"] for answer in answers} == {"run-r1", "run-r2"}
        assert (await host.run(worker, "tool"))["output"] == 8
        assert (await host.run(worker, "print", "r3"))["output"] is True
        assert host.lines("r3") == ["from a thread"]
        await host.hears(lambda: "from another" in host.lines(None))  # a thread of nobody's run, among many


async def test_a_worker_that_is_asked_to_end_closes_its_agents_and_ends(host: Host, python: Path) -> None:
    async with host.worker(python) as worker:
        await host.run(worker, "x")
        await worker.stop("enough")
        assert worker.ended.result() == "enough (exit status 0)"
        assert host.lines(None) == ["closed tester"]
        assert not worker.alive


# ---- what happens in a worker


async def test_a_line_that_two_runs_write_at_once_does_not_mix(host: Host) -> None:
    async with host.worker() as worker:
        await asyncio.gather(*(host.run(worker, "interleaved", f"r{n}") for n in range(20)))
        assert sorted(host.logs) == sorted((f"r{n}", "stdout", "abc") for n in range(20))


async def test_an_agent_that_cannot_be_built_is_an_error_with_an_origin(host: Host) -> None:
    async with host.worker() as worker:
        for instructions, words in (("broken", "can't build this"), ("exit", "SystemExit")):
            with pytest.raises(RpcError, match=words) as caught:
                await worker.call(Method.AGENT_OPEN, portable("b", instructions))
            assert failure(caught)["origin"] == "adapter"
        assert (await host.run(worker, "tool"))["output"] == 42


@pytest.mark.parametrize(("module", "attribute"), [("missing", "agent"), ("mine", "missing"), ("mine", "broken")])
async def test_an_entrypoint_that_is_not_there_is_the_users_error(host: Host, module: str, attribute: str) -> None:
    root = host.folder / "project"
    root.mkdir()
    (root / "mine.py").write_text("def broken():\n    raise OSError('mine')\n")
    async with host.worker() as worker:
        with pytest.raises(RpcError) as caught:
            await worker.call(
                Method.AGENT_OPEN,
                {"agent_id": "n", "source": {"root": str(root), "module": module, "attribute": attribute}},
            )
        assert failure(caught)["origin"] == "user"


@pytest.mark.parametrize("adapter", ["Loop", "Blocking"])
async def test_sys_exit_in_an_agent_ends_its_run_and_not_the_worker(host: Host, adapter: str) -> None:
    async with host.worker(adapter=adapter) as worker:
        with pytest.raises(RpcError, match=r"sys\.exit") as caught:
            await host.run(worker, "exit")
        assert failure(caught)["origin"] == ("framework" if adapter == "Loop" else "adapter")
        assert (await host.run(worker, "tool"))["output"] in (42, 8)


async def test_a_worker_for_one_run_at_a_time_refuses_a_second(host: Host) -> None:
    async with host.worker(adapter="Alone") as worker:
        first = asyncio.create_task(host.run(worker, "hang", "r1"))
        await host.hears(lambda: bool(host.events))
        with pytest.raises(RpcError, match="busy"):
            await host.run(worker, "x", "r2")
        worker.notify(Method.RUN_CANCEL, {"run_id": "r1"})
        with pytest.raises(RpcError, match="cancelled"):
            await first
        assert (await host.run(worker, "x", "r3"))["output"] == "x"


async def test_a_blocking_run_ends_at_its_next_check(host: Host) -> None:
    async with host.worker(adapter="Blocking") as worker:
        run = asyncio.create_task(host.run(worker, "loop", "r7"))
        await host.hears(lambda: "looping" in host.lines("r7"))
        worker.notify(Method.RUN_CANCEL, {"run_id": "r7"})
        with pytest.raises(RpcError) as caught:
            await asyncio.wait_for(run, 2)
        assert caught.value.code == ErrorCode.CANCELLED


@pytest.mark.parametrize("adapter", ["Loop", "Blocking"])
@pytest.mark.parametrize("when", ["before", "with", "after"])
async def test_a_run_that_is_cancelled_about_its_start_ends_at_once(host: Host, adapter: str, when: str) -> None:
    async with host.worker(adapter=adapter) as worker:
        await host.run(worker, "x", "r1")
        if when == "before":
            worker.notify(Method.RUN_CANCEL, {"run_id": "r7"})
        run = asyncio.create_task(host.start(worker, "hang" if adapter == "Loop" else "loop", "r7"))
        await asyncio.sleep(0)  # it is sent; the worker reads both at once
        if when == "with":
            worker.notify(Method.RUN_CANCEL, {"run_id": "r7"})
        elif when == "after":
            await worker.call(Method.PING, {})
            worker.notify(Method.RUN_CANCEL, {"run_id": "r7"})
        with pytest.raises(RpcError) as caught:
            await asyncio.wait_for(run, 2)
        assert caught.value.code == ErrorCode.CANCELLED
        assert "never awaited" not in " ".join(host.lines(None))
        assert worker.alive
        assert (await host.run(worker, "x", "r7"))["output"] in ("x", True), "a cancellation counts once"


async def test_an_answer_that_is_no_json_fails_its_run_alone(host: Host) -> None:
    async with host.worker() as worker:
        with pytest.raises(RpcError, match="can't be sent"):
            await host.run(worker, "unsendable")
        assert (await host.run(worker, "x"))["output"] == "x"


async def test_what_a_later_host_adds_is_ignored(host: Host) -> None:
    agent = portable()
    agent["spec"].update(later="x", tools=[{"name": "t", "description": "", "parameters": {}, "later": 1}])
    async with host.worker() as worker:
        await host.run(worker, "x", agent=agent)
        again = {"run_id": "r2", "agent_id": "a", "token": "t", "workspace": str(host.folder), "input": "y", "later": 1}
        again["messages"] = [{"role": "user", "content": "x", "later": 1}]
        assert (await worker.call(Method.RUN_START, again))["output"] == "y"


@pytest.mark.parametrize(
    ("method", "params"),
    [
        (Method.RUN_START, {}),
        (Method.RUN_START, {"agent_id": "nobody"}),
        (Method.AGENT_OPEN, {}),
        (Method.AGENT_OPEN, {"agent_id": "x", "spec": {"unknown": 1}}),
        (Method.INITIALIZE, {}),
    ],
)
async def test_parameters_that_are_wrong_are_answered_as_such(host: Host, method: str, params: dict[str, Any]) -> None:
    async with host.worker() as worker:
        with pytest.raises(RpcError) as caught:
            await worker.call(method, params)
        assert caught.value.code == ErrorCode.INVALID_PARAMS
        assert await worker.call(Method.PING, {}) == {}


# ---- versions, heartbeats, ends


@contextlib.asynccontextmanager
async def raw(host: Host, **listeners: Callable[[dict[str, Any]], None]) -> AsyncIterator[tuple[Peer, Any]]:
    """A worker that has not been spoken to yet."""
    spec = host.spec(Path(sys.executable), "Loop")
    launched = await launch(spec, worker_zip(host.folder / "zip"), host.folder / "worker")
    loop = asyncio.get_running_loop()
    connection = launched.connection
    await loop.run_in_executor(None, connection.recv, 1, 2)  # MSG_PEEK: wait for the preamble
    door, gate = receive_preamble(connection)
    assert door is not None
    assert gate is None
    door.close()
    connection.setblocking(False)
    peer = Peer({}, listeners)
    await loop.create_unix_connection(lambda: peer, sock=connection)
    try:
        yield peer, launched.process
    finally:
        peer.abort("the test is over")
        await asyncio.wait_for(launched.process.wait(), 10)


def introduction(host: Host, **changes: Any) -> dict[str, Any]:
    adapter = {"folder": str(host.folder / "adapter"), "module": "adapter", "class": "Loop"}
    known = {"protocol_version": PROTOCOL_VERSION, "kind": "agent", "worker_id": "w", "heartbeat_s": 5.0}
    return {**known, "adapter": adapter, **changes}


async def test_another_major_version_is_refused_and_a_later_minor_accepted(host: Host) -> None:
    async with raw(host) as (peer, _):
        with pytest.raises(RpcError, match=rf"protocol 2\.0 is not spoken here, but {PROTOCOL_VERSION}") as caught:
            await peer.call(Method.INITIALIZE, introduction(host, protocol_version="2.0"))
        assert caught.value.code == ErrorCode.INVALID_REQUEST
        answer = await peer.call(Method.INITIALIZE, introduction(host, protocol_version="1.9", later="ignored"))
        assert answer["protocol_version"] == PROTOCOL_VERSION


async def test_a_worker_beats_at_the_period_it_was_given(host: Host) -> None:
    beats: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    async with raw(host, heartbeat=beats.put_nowait) as (peer, _):
        await peer.call(Method.INITIALIZE, introduction(host, heartbeat_s=0.01))
        for _ in range(3):
            assert (await asyncio.wait_for(beats.get(), 5))["rss_mib"] > 1


async def test_a_worker_ends_with_its_connection(host: Host) -> None:
    async with raw(host) as (peer, process):
        await peer.call(Method.INITIALIZE, introduction(host))
        peer.close()
        assert await asyncio.wait_for(process.wait(), 10) == 0


async def test_a_worker_gives_up_a_host_that_breaks_the_protocol(host: Host) -> None:
    async with raw(host) as (peer, process):
        await peer.call(Method.INITIALIZE, introduction(host))
        peer.notify(Method.RUN_CANCEL, {"no": "run"})
        assert await asyncio.wait_for(process.wait(), 10) == 0


async def test_a_worker_that_blocks_its_loop_is_found_silent_and_killed(host: Host) -> None:
    async with host.worker(heartbeat_s=0.05, silence_s=1.0) as worker:
        with pytest.raises(WorkerSilent, match="silent"):
            await asyncio.wait_for(host.run(worker, "block"), 20)
        assert "SIGKILL" in worker.ended.result()


async def test_a_worker_that_dies_in_a_run_says_how(host: Host) -> None:
    async with host.worker() as worker:
        with pytest.raises(WorkerDied, match="exit status 7"):
            await host.run(worker, "die")
        assert not worker.alive


async def test_a_killed_worker_fails_its_runs_at_once(host: Host) -> None:
    async with host.worker() as worker:
        runs = [asyncio.create_task(host.run(worker, "hang", f"r{n}")) for n in range(3)]
        await host.hears(lambda: len(host.events) == 3)
        os.kill(worker.pid, signal.SIGKILL)
        for run in runs:
            with pytest.raises(WorkerDied, match="SIGKILL"):
                await asyncio.wait_for(run, 5)


async def test_nothing_of_a_worker_stays_behind(host: Host) -> None:
    before = descriptors()
    async with host.worker() as worker:
        await host.run(worker, "x")
    await asyncio.to_thread(wait_until_gone, worker.folder)
    async with asyncio.timeout(10):
        while descriptors() != before:  # sockets that a worker had a hand in are closed beside the loop
            await asyncio.sleep(0.01)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def wait_until_gone(folder: Path) -> None:
    deadline = time.monotonic() + 10
    while folder.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


HOST_PROGRAM = """
import asyncio, sys
from pathlib import Path
from agentforge.sandbox import Fence, sandbox_for
from agentforge.workers import AdapterCode, Handlers, Worker, WorkerSpec, Workspaces, worker_zip
from agentforge_worker.wire import Method

async def main(folder):
    code = AdapterCode(folder / "adapter", "adapter", "Loop")
    workspaces, sandbox = Workspaces(folder / "workspaces"), sandbox_for("standard")
    workspace = workspaces.open("runs", "r", sandbox)
    group, user = workspaces.group("runs", sandbox)
    site = folder / "site"
    fence = Fence(reads=(site,), workspaces=group)
    variables = {"FRAMEWORK": str(site)}
    spec = WorkerSpec("agent", "env", Path(sys.executable), "v", code, variables, fence=fence, user=user)
    worker = await Worker.start("w", spec, pyz=worker_zip(folder), folder=folder / "w", handlers=Handlers())
    await worker.call(Method.AGENT_OPEN, {"agent_id": "a", "spec": {"name": "n", "instructions": "", "model": "m"}})
    run = {"run_id": "r", "agent_id": "a", "token": "t", "workspace": str(workspace), "input": sys.argv[2]}
    task = asyncio.create_task(worker.call(Method.RUN_START, run))
    while sys.argv[2] == "block" and not (workspace / "blocked").exists():
        await asyncio.sleep(0.01)
    print(worker.pid, flush=True)
    await task

asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.mark.parametrize("what", ["hang", "block"])
def test_a_worker_ends_when_its_host_is_killed_whatever_it_is_doing(host: Host, what: str) -> None:
    program = [sys.executable, "-c", textwrap.dedent(HOST_PROGRAM), str(host.folder), what]
    with subprocess.Popen(program, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        ending = os.pidfd_open(pid)
        try:
            assert not select.select([ending], [], [], 0)[0]
            process.kill()
            process.wait()
            assert select.select([ending], [], [], 10)[0], "the worker outlived its host"
        finally:
            os.close(ending)


# ---- starts that fail


def interpreter(path: Path, program: str) -> Path:
    """An executable in the place of a Python: it gets `-s worker.pyz --fd N ...`."""
    path.write_text(f"#!{sys.executable}\n{textwrap.dedent(program)}")
    path.chmod(0o755)
    return path


async def test_an_interpreter_that_is_not_there_is_named(host: Host) -> None:
    with pytest.raises(WorkerStartFailed, match="nowhere/python"):
        async with host.worker(host.folder / "nowhere/python"):
            pass


async def test_an_interpreter_that_ends_at_once_is_quoted(host: Host) -> None:
    fake = interpreter(host.folder / "fake", "import sys; sys.exit('my libssl is missing')")
    with pytest.raises(WorkerStartFailed, match="my libssl is missing"):
        async with host.worker(fake):
            pass


async def test_a_process_that_is_no_worker_is_refused(host: Host) -> None:
    fake = interpreter(
        host.folder / "fake",
        """
        import os, sys, time
        os.write(int(sys.argv[sys.argv.index("--fd") + 1]), b"GET / HTTP/1.1")
        time.sleep(3600)
        """,
    )
    with pytest.raises(HandshakeFailed, match="unexpected preamble"):
        async with host.worker(fake):
            pass


async def test_a_process_that_says_nothing_is_given_up(host: Host) -> None:
    fake = interpreter(host.folder / "fake", "import time; time.sleep(3600)")
    with pytest.raises(WorkerStartFailed, match="did not answer within"):
        async with host.worker(fake, start_s=0.3):
            pass


async def test_an_adapter_that_cannot_be_imported_is_refused_with_its_traceback(host: Host) -> None:
    (host.folder / "adapter/adapter.py").write_text("import not_installed_here\n")
    with pytest.raises(HandshakeFailed, match="not_installed_here") as caught:
        async with host.worker():
            pass
    assert "adapter.py" in caught.value.details["traceback"]


HOSTILE = """
import signal, sys, time
sys.path.insert(0, sys.argv[2])
import json, socket
from agentforge_worker.wire import open_door, send_preamble, encode_frames, FrameDecoder
signal.signal(signal.SIGTERM, signal.SIG_IGN)
connection = socket.socket(fileno=int(sys.argv[sys.argv.index("--fd") + 1]))
send_preamble(connection, open_door())
decoder, asked = FrameDecoder(), 0
while True:
    for message in decoder.feed(connection.recv(65536)):
        asked += 1
        answer = {"jsonrpc": "2.0", "id": json.loads(message)["id"], "result": HELLO}
        connection.sendall(encode_frames(json.dumps(answer).encode()) if asked == 1 else b"\\xff" * 100)
        if asked == 2:
            time.sleep(3600)
"""
HELLO = {"protocol_version": "1.0", "worker": {}, "capabilities": {}, "probe": {}}


@pytest.mark.parametrize("hello", ["a text", {"protocol_version": "2.0"}, {}])
async def test_a_worker_with_a_wrong_introduction_is_refused(host: Host, hello: Any) -> None:
    fake = interpreter(host.folder / "fake", HOSTILE.replace("HELLO", repr(hello)))
    with pytest.raises(HandshakeFailed, match="does not speak protocol"):
        async with host.worker(fake):
            pass


async def test_a_worker_that_breaks_the_protocol_is_killed_and_the_host_goes_on(host: Host) -> None:
    fake = interpreter(host.folder / "fake", HOSTILE.replace("HELLO", repr(HELLO)))
    async with host.worker(fake, terminate_s=0.2) as worker:
        with pytest.raises(WorkerDied, match=r"protocol error: unknown frame flags 0xff \(killed by SIGKILL\)"):
            await asyncio.wait_for(worker.call(Method.PING, {}), 10)
    async with host.worker() as good:
        assert await good.call(Method.PING, {}) == {}


def test_the_zip_is_the_same_for_the_same_code_and_holds_nothing_but_the_guest(tmp_path: Path) -> None:
    first, second = worker_zip(tmp_path / "a"), worker_zip(tmp_path / "b")
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {"agentforge_worker", "__main__.py"}
