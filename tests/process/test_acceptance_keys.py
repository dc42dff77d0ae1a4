"""The real key stays in the host: it is not in the framework worker's environment, and not in its memory."""

import asyncio
import re
import shutil
from pathlib import Path

import pytest

from .project_world import EXAMPLE, KEY, Project, processes_of

TOKEN = re.compile(rb"af-run-[\w-]{16,}")
TRACED = "1"


async def dumped(pid: int, folder: Path) -> bytes:
    """Return the core of a live process."""
    if shutil.which("gcore") is None:
        return await asyncio.to_thread(_memory, pid)
    process = await asyncio.create_subprocess_exec(
        "gcore", "-a", "-o", str(folder / "core"), str(pid),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode(errors="replace")
    return await asyncio.to_thread((folder / f"core.{pid}").read_bytes)


def _memory(pid: int) -> bytes:
    """Return every readable private page of a process, as its core would hold them; needs the right to trace it."""
    pieces = []
    with Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights = line.split()[:2]
            if not rights.startswith("r") or line.endswith(("[vvar]", "[vsyscall]", "[vvar_vclock]")):
                continue
            start, end = (int(part, 16) for part in span.split("-"))
            memory.seek(start)
            try:
                pieces.append(memory.read(end - start))
            except OSError:  # a mapping of a device or of a file that has shrunk
                continue
    return b"".join(pieces)


@pytest.mark.feature("AF-181")
@pytest.mark.framework("langchain")
async def test_the_real_key_is_not_in_the_framework_worker_but_the_run_token_is(
    project: Project, tmp_path: Path
) -> None:
    agent = project.agent(framework="langchain")
    first = await project.run(agent, "once")  # so that a whole call has gone through this process
    assert first["status"] == "succeeded"
    run_id = await project.detached(agent, "again", "--model", "openai:slow-600")
    async with asyncio.timeout(60):
        _, busy = await project.model.wait_for_requests(2)
    assert busy.header("authorization") == f"Bearer {KEY}"
    (worker,) = await project.workers()
    processes = processes_of(worker["pid"])
    environment = Path(f"/proc/{processes[-1]}/environ").read_bytes()
    memory = b"".join([await dumped(pid, tmp_path) for pid in processes])
    assert busy.status is None, "the model call ended before the search did"
    assert b"PYTHONHASHSEED=0" in environment
    assert KEY.encode() not in environment
    assert TOKEN.search(memory), "the search finds nothing at all"
    assert b"again" in memory
    assert KEY.encode() not in memory
    await project.command("runs", "cancel", run_id)


async def test_both_ways_to_search_a_process_find_what_is_in_it(tmp_path: Path) -> None:
    secret = "needle-" + "9f2c"
    process = await asyncio.create_subprocess_exec(
        "python3", "-c", "import sys; kept = ''.join(sys.argv[1:]); print(len(kept), flush=True); sys.stdin.read()",
        secret[:6], secret[6:],
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    await process.stdout.readline()
    assert secret.encode() in await asyncio.to_thread(_memory, process.pid)
    assert secret.encode() in await dumped(process.pid, tmp_path)
    process.kill()
    await process.wait()


async def test_no_process_of_a_run_inherits_the_callers_environment(project: Project) -> None:
    project.variables["SECRET_OF_THE_CALLER"] = "do-not-pass-me-on"
    await project.run(str(EXAMPLE), "x", "--on", "python")
    workers = [*await project.workers(), *await project.workers("tools")]
    assert len(workers) == 2
    for pid in [pid for worker in workers for pid in processes_of(worker["pid"])]:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"do-not-pass-me-on" not in environment
        assert KEY.encode() not in environment
    host = Path(f"/proc/{(await project.host())['pid']}/environ").read_bytes()
    assert b"do-not-pass-me-on" not in host
    assert KEY.encode() not in host
