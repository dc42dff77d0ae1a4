"""`Forge`, the Python client: with a host of its own, as a client of the project's, blocking and not."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from agentforge import AgentForgeError, Forge, RunEvent, RunHandle, RunResult
from agentforge.api.place import answers, host_place
from agentforge_conformance.scripted_model import CalledTool, Step

from .project_world import Project, gone

pytestmark = pytest.mark.feature("AF-181")


@pytest.fixture(autouse=True)
def inside(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process is the program of the project's user."""
    for name, value in project.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(project.root)
    yield
    assert not answers(host_place(project.root))


async def test_a_program_runs_an_agent_on_a_host_of_its_own(project: Project) -> None:
    async with Forge() as forge:
        result = await forge.run(project.agent(), "hello")
        assert (result.ok, result.status, result.output) == (True, "succeeded", "FINAL: hello")
        assert result.check() is result
        assert len(await project.workers()) == 1
    assert project.processes() == []


async def test_a_run_is_submitted_watched_and_awaited(project: Project) -> None:
    async with Forge() as forge:
        run = await forge.submit(project.agent(), "hello", stream=True, thread="t", labels={"team": "blue"})
        kinds = [event.kind async for event in run.events()]
        assert kinds[0] == "run.started"
        assert kinds[-1] == "run.finished"
        result = await run.result()
        assert (result.raw["thread"], result.raw["labels"]) == ("t", {"team": "blue"})
        assert [event.seq async for event in run.events(after=2)] == list(range(3, len(kinds) + 1))
        assert (await forge.attach(run.run_id).result()).output == result.output


async def test_who_watches_may_leave_early(project: Project) -> None:
    async with Forge() as forge:
        run = await forge.submit(project.agent(), "hello")
        async for event in run.events():
            assert event.kind == "run.started"
            break
        assert (await run.result()).ok


async def test_a_run_is_cancelled(project: Project) -> None:
    async with Forge() as forge:
        run = await forge.submit(project.agent(), "x", model="openai:slow-600")
        async with asyncio.timeout(60):
            await project.model.wait_for_requests(1)
        assert (await run.status()).status == "running"
        result = await run.cancel()
        assert (result.status, result.ok, result.error) == ("cancelled", False, None)
        with pytest.raises(AgentForgeError) as raised:
            result.check()
        assert raised.value.code == "AF709"


async def test_an_agent_may_be_a_mapping(project: Project) -> None:
    async with Forge() as forge:
        result = await forge.run({"name": "made-here", "instructions": "Answer."}, "x", on="python")
    assert (result.agent, result.output) == ("made-here", "FINAL: x")


async def test_a_failed_run_is_a_result_and_check_makes_it_an_exception(project: Project) -> None:
    async with Forge() as forge:
        result = await forge.run(project.agent(), "x", model="openai:fail-401")
        assert result.error is not None
        assert (result.status, result.error.code, result.error.origin) == ("failed", "AF501", "model")
        with pytest.raises(AgentForgeError, match="401") as raised:
            result.check()
        assert (raised.value.code, raised.value.hint) == ("AF501", result.error.hint)


@pytest.mark.parametrize(
    ("agent", "options", "code"),
    [
        ("missing.yaml", {"on": "python"}, "AF101"),
        ("agent", {"on": "nothing"}, "AF202"),
        ("agent", {"model": "x"}, "AF107"),
    ],
)
async def test_what_can_not_be_started_is_an_exception_with_a_code(
    project: Project, agent: str, options: dict[str, str], code: str
) -> None:
    project.agent()
    async with Forge() as forge:
        with pytest.raises(AgentForgeError) as raised:
            await forge.run(agent, "x", **options)
    assert raised.value.code == code
    assert raised.value.hint


async def test_the_same_submit_key_is_the_same_run(project: Project) -> None:
    async with Forge() as forge:
        agent = project.agent()
        first = await forge.submit(agent, "x", submit_key="k")
        again = await forge.submit(agent, "x", submit_key="k")
        assert first.run_id == again.run_id
        assert (await again.result()).ok
    assert len(project.model.requests) == 1


async def test_the_same_submit_key_is_the_same_run_though_the_agent_is_gone(project: Project) -> None:
    async with Forge() as forge:
        agent = Path(project.root, project.agent())
        first = await forge.submit(agent, "x", submit_key="k")
        await first.result()
        agent.rename(project.root / "elsewhere")
        assert (await forge.submit(agent, "x", submit_key="k")).run_id == first.run_id
        with pytest.raises(AgentForgeError):
            await forge.submit(agent, "x", submit_key="other")


async def test_a_program_is_a_client_of_the_host_that_runs(project: Project) -> None:
    agent = project.agent()
    await project.run(agent)
    before = (await project.host())["pid"]
    async with Forge() as forge:
        assert (await forge.run(agent, "from the program")).output == "FINAL: from the program"
        assert len((await forge.connection.get("/v1/runs"))["runs"]) == 2
    assert (await project.host())["pid"] == before
    await project.stop()


async def test_commands_are_clients_of_a_programs_host(project: Project) -> None:
    async with Forge() as forge:
        agent = project.agent()
        await forge.run(agent)
        assert (await project.run(agent, "from a command"))["output"] == "FINAL: from a command"
        assert len(await project.workers()) == 1


async def test_two_programs_at_once_share_one_host(project: Project) -> None:
    agent = project.agent()
    async with Forge() as one, Forge() as two:
        results = await asyncio.gather(one.run(agent, "1"), two.run(agent, "2"))
    assert [result.output for result in results] == ["FINAL: 1", "FINAL: 2"]


async def test_runs_that_a_program_leaves_behind_go_on_with_the_next_host(project: Project) -> None:
    project.write("agentforge.toml", "[host]\ndrain_s = 0\n")
    held = project.model.script("held", Step(text="too late", delay_s=600), Step(text="in the end"))
    async with Forge() as forge:
        run = await forge.submit(project.agent(), "x", model=f"openai:{held}")
        async with asyncio.timeout(60):
            await project.model.wait_for_requests(1)
    async with Forge() as forge:
        result = await forge.attach(run.run_id).result()
    assert (result.status, result.output) == ("succeeded", "in the end")


async def test_the_program_may_go_on_while_its_host_starts_and_stops(project: Project) -> None:
    ticks = 0

    async def ticking() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    task = asyncio.create_task(ticking())
    forge = Forge()
    before = ticks
    await forge.__aenter__()
    assert ticks > before
    before = ticks
    await forge.__aexit__(None, None, None)
    assert ticks > before
    task.cancel()


def test_the_same_blocking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With native agents: no model is there to be asked."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "code.py").write_text("async def agent(input, ctx):\n    return {'got': input}\n")
    agent = {"name": "native", "native": {"framework": "python", "entrypoint": "code:agent"}}
    with Forge.sync(tmp_path) as forge:
        assert forge.run(agent, [1, 2]).output == {"got": [1, 2]}
        run = forge.submit(agent, "x")
        assert [event.kind for event in run.events()][-1] == "run.finished"
        assert run.result().output == {"got": "x"}
        assert run.status().ok
        assert forge.attach(run.run_id).cancel().status == "succeeded"
        assert run.checkpoints() == []
        fork = run.fork(input="y")
        assert fork.result().output == {"got": "y"}
        assert not run.diff(fork)["output_same"]
        assert run.replay()["same"]
        run.export(tmp_path / "run.file")
        assert forge.import_run(tmp_path / "run.file").run_id == run.run_id
        assert run.rollback(-1).status == "waiting"
        assert run.resume().status in ("queued", "running", "succeeded")
        assert run.result().ok
        assert (forge.threads(), forge.resume_all()) == ([], [])
    with pytest.raises(AgentForgeError) as raised, Forge.sync(tmp_path) as forge:
        forge.run("missing.yaml")
    assert raised.value.code == "AF101"


async def test_a_programs_host_stays_while_the_program_may_need_it(project: Project) -> None:
    project.write("agentforge.toml", "[host]\nidle_s = 0.1\n")
    agent = project.agent()
    async with Forge() as forge:
        pid = (await project.host())["pid"]
        await asyncio.sleep(1)  # ten times what a host of its own would wait: there is no event to wait for
        assert answers(host_place(project.root))
        assert (await project.host())["pid"] == pid == os.getpid()
        assert (await forge.run(agent, "later")).output == "FINAL: later"


async def test_a_program_gets_a_new_host_when_its_host_has_left(project: Project) -> None:
    agent = project.agent()
    await project.run(agent)
    async with Forge() as forge:
        await project.stop()
        results = await asyncio.gather(*(forge.run(agent, f"{number}") for number in range(3)))
        assert [result.output for result in results] == ["FINAL: 0", "FINAL: 1", "FINAL: 2"]
        assert (await project.host())["pid"] == os.getpid()


@pytest.mark.parametrize("inline", [False, True])
async def test_a_program_whose_host_is_just_stopping_gets_a_new_one(
    project: Project, monkeypatch: pytest.MonkeyPatch, inline: bool
) -> None:
    if inline:
        monkeypatch.setenv("AGENTFORGE_HOST", "inline")
    project.write("agentforge.toml", "[host]\ndrain_s = 0.5\n")
    agent = project.with_tools("hanging", "import time\n\ndef hangs(why: str) -> str:\n    time.sleep(600)\n", "hangs")
    async with Forge() as forge:
        run = await forge.submit(agent, "x")
        async for event in run.events():
            if event.kind == "tool.called":
                break
        stopping = asyncio.create_task(forge.connection.post("/v1/host/stop"))
        assert (await _over_the_stop(lambda: forge.run(project.agent(), "meanwhile"))).output == "FINAL: meanwhile"
        await asyncio.gather(stopping, return_exceptions=True)
        left = await _over_the_stop(forge.attach(run.run_id).result)
        assert (left.status, left.interrupts[0]["kind"]) == ("waiting", "tool")


async def _over_the_stop(ask: Callable[[], Awaitable[RunResult]]) -> RunResult:
    """Ask again while the host that stops says that the run goes on with the next one."""
    while True:
        try:
            return await ask()
        except AgentForgeError as error:
            if error.code != "AF706" or "run_id" not in error.info().details:
                raise


@pytest.mark.feature("AF-081")
@pytest.mark.parametrize("waits", ["run", "result", "events"])
async def test_a_run_whose_host_is_killed_goes_on_for_who_waits(project: Project, waits: str) -> None:
    agent = project.agent()
    await project.run(agent)
    pid = (await project.host())["pid"]
    model = f"openai:{project.model.script('held', Step(delay_s=600), after='default')}"
    told: list[str] = []
    async with Forge(notice=told.append) as forge:
        if waits == "run":
            waiting = asyncio.create_task(forge.run(agent, "x", model=model))
        else:
            run = await forge.submit(agent, "x", model=model)
            waiting = asyncio.create_task(run.result() if waits == "result" else _last(run))
        async with asyncio.timeout(60):
            await project.model.wait_for_requests(2)
        os.kill(pid, signal.SIGKILL)
        result = await waiting
        assert (result.output, result.attempts, result.replayed_effects) == ("FINAL: x", 2, 0)
        assert told == ["the host ended; going on with a new one"]
        assert (await project.host())["pid"] == os.getpid()
        assert len((await forge.connection.get("/v1/runs"))["runs"]) == 2
    await gone(pid)


async def _last(run: RunHandle) -> RunResult:
    """Watch a run to its end."""
    *events, result = [item async for item in run.watch()]
    assert [each.seq for each in events if isinstance(each, RunEvent)] == list(range(1, len(events) + 1))
    assert isinstance(result, RunResult)
    return result


@pytest.mark.feature("AF-081")
async def test_a_program_that_starts_a_host_has_left_runs_go_on_with_its_keys(project: Project) -> None:
    project.write(
        "agentforge.toml",
        f'[models.default]\nupstream = "openai"\nbase_url = "{project.model.base_url}"\n'
        'api_key = "${env:SPECIAL_KEY}"\nmodel = "script:held"\n',
    )
    project.model.script("held", Step(delay_s=600), after="default")
    keyed = {"SPECIAL_KEY": "sk-special"}
    done = await project.command("run", project.agent(), "x", "--detach", variables=keyed)
    async with asyncio.timeout(60):
        await project.model.wait_for_requests(1)
    pid = (await project.host())["pid"]
    os.kill(pid, signal.SIGKILL)
    await gone(pid)
    lacking = await project.command("runs", "resume", "--all")
    assert (lacking.code, lacking.out) == (1, ""), lacking
    assert "SPECIAL_KEY" in lacking.err
    assert len(project.model.requests) == 1
    resumed = await project.command("runs", "resume", "--all", variables=keyed)
    assert resumed.code == 0, resumed
    assert resumed.out == f"{done.out.strip()}  succeeded  FINAL: x\n"
    assert project.keys_seen() == {"Bearer sk-special"}
    await project.stop()


async def test_a_runs_history_is_in_reach_of_a_program(project: Project) -> None:
    code = "def double(number: int) -> int:\n    return 2 * number\n"
    agent = project.with_tools("doubling", code, "double", approval="always")
    step = Step(calls=[CalledTool("double", {"number": 21})])
    model = f"openai:{project.model.script('calls', step, after='default')}"
    async with Forge() as forge:
        run = await forge.submit(agent, "x", model=model, thread="t")
        waiting = await run.result()
        assert (waiting.status, waiting.interrupts[0]["kind"]) == ("waiting", "approval")
        with pytest.raises(AgentForgeError, match="approval") as raised:
            waiting.check()
        assert raised.value.code == "AF709"
        with pytest.raises(AgentForgeError) as raised:
            await run.answer("retry")
        assert raised.value.code == "AF712"
        await run.answer("approve", interrupt=waiting.interrupts[0]["id"])
        assert (await run.result()).output == "FINAL: tool said 42"
        kinds = [each["kind"] for each in await run.checkpoints()]
        assert kinds == ["model", "answer", "tool", "model"]
        assert (await run.checkpoint(2))["response"] == {"value": 42}
        fork = await run.fork(at=2, edit=1000)
        assert (await fork.result()).output == "FINAL: tool said 1000"
        assert (await run.diff(fork))["first_difference"] == 2
        assert (await run.replay())["same"]
        await run.export(project.root / "run.file")
        assert (await forge.import_run(project.root / "run.file")).run_id == run.run_id
        assert [each["thread"] for each in await forge.threads()] == ["t"]
        assert (await forge.thread("t"))[0]["role"] == "user"
        await forge.delete_thread("t")
        assert await forge.threads() == []
        assert (await run.rollback(0)).status == "waiting"
        assert len(await run.checkpoints(voided=True)) == 4
        await run.resume()
        assert (await run.result()).status == "waiting"
        assert (await run.cancel()).status == "cancelled"
        assert await forge.resume_all() == []


@pytest.mark.parametrize("inline", [False, True])
async def test_forges_of_one_process_share_its_host(
    project: Project, monkeypatch: pytest.MonkeyPatch, inline: bool
) -> None:
    if inline:
        monkeypatch.setenv("AGENTFORGE_HOST", "inline")
    agent = project.agent()
    async with asyncio.timeout(60):
        one, two, three = Forge(), Forge(project.root), Forge()
        await asyncio.gather(one.__aenter__(), two.__aenter__())
        await three.__aenter__()
        await one.__aexit__(None, None, None)
        assert (await two.run(agent, "2")).output == "FINAL: 2"
        await two.__aexit__(None, None, None)
        assert (await three.run(agent, "3")).output == "FINAL: 3"
        assert len({os.getsid(each.pid) for each in project.processes()}) == 1, "one worker, in its sandbox"
        await three.__aexit__(None, None, None)
    assert project.processes() == []
    async with Forge() as again:
        assert (await again.run(agent, "4")).output == "FINAL: 4"


async def test_who_gives_up_entering_leaves_the_host_to_the_others(project: Project) -> None:
    quitter, other = Forge(), Forge()
    tasks = [asyncio.create_task(forge.__aenter__()) for forge in (quitter, other)]
    await asyncio.sleep(0)  # both wait for the host's start
    tasks[0].cancel()
    async with asyncio.timeout(60):
        await tasks[1]
    assert tasks[0].cancelled()
    assert (await other.run(project.agent(), "x")).ok
    await other.__aexit__(None, None, None)


async def test_what_a_killed_program_left_is_cleaned_up(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTFORGE_HOST", "inline")
    code = "import asyncio, agentforge, os, signal\nasync def main():\n    async with agentforge.Forge():\n"
    code += "        os.kill(os.getpid(), signal.SIGKILL)\nasyncio.run(main())\n"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    await process.wait()
    place = host_place(project.root)
    left = place.socket.with_name(f"{place.socket.stem}-{process.pid}.sock")
    assert left.exists()
    async with Forge():
        assert not left.exists()
        assert len(list(place.socket.parent.glob(f"{place.socket.stem}-*.sock"))) == 1
