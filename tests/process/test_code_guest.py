"""The process that runs a model's code, by itself and on every Python: what it says, whatever the code does to it."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from agentforge.workers import worker_zip

pytestmark = pytest.mark.feature("AF-148")
Report = dict[str, Any]


@pytest.fixture
def pyz(tmp_path: Path) -> Path:
    return worker_zip(tmp_path / "zip")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the code runs."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


@asynccontextmanager
async def started(
    pyz: Path, folder: Path, code: str, python: Path, timeout_s: float, inode: str = ""
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start it in a process group of its own, which is gone in the end: here is no sandbox to end what is in it."""
    found = folder.stat()
    spare = os.open("/dev/null", os.O_RDONLY)  # that it has come by some descriptors must not matter
    process = await asyncio.create_subprocess_exec(
        str(python), "-s", str(pyz), "code", "--folder", str(folder),
        "--inode", inode or f"{found.st_dev}:{found.st_ino}", "--timeout", str(timeout_s),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8"},
        start_new_session=True, pass_fds=[spare],
    )  # fmt: skip
    os.close(spare)
    assert process.stdin is not None
    process.stdin.write(code.encode())
    process.stdin.close()
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def run(
    pyz: Path, folder: Path, code: str, python: Path = Path(sys.executable), timeout_s: float = 30.0, inode: str = ""
) -> Report:
    """Run code and return the report, of which there has to be exactly one."""
    async with started(pyz, folder, code, python, timeout_s, inode) as process:
        out, err = await process.communicate()
    assert (process.returncode, err) == (0, b""), err
    assert len(out) < 1 << 19
    report: Report = json.loads(out)
    assert set(report) == {"ended", "stdout", "stderr", "result", "error", "files"}
    return report


async def test_code_runs_as_a_cell_of_a_notebook_does(pyz: Path, folder: Path, python: Path) -> None:
    code = """
import sys
print("to stdout")
print("to stderr", file=sys.stderr)
with open("made.txt", "w") as file:
    file.write("x")
class Point:
    def __repr__(self):
        return "a point"
Point()
"""
    assert await run(pyz, folder, code, python) == {
        "ended": "done",
        "stdout": "to stdout\n",
        "stderr": "to stderr\n",
        "result": "a point",
        "error": None,
        "files": ["made.txt"],
    }


async def test_an_exception_is_told_with_its_place_in_the_code(pyz: Path, folder: Path, python: Path) -> None:
    report = await run(pyz, folder, "def half(n):\n    return n / 0\n\nprint('first')\nhalf(3)", python)
    error = report["error"]
    assert (report["ended"], report["stdout"], report["result"]) == ("done", "first\n", None)
    assert (error["type"], error["message"]) == ("ZeroDivisionError", "division by zero")
    lines = [line.strip() for line in error["traceback"].splitlines()]
    assert lines[:3] == ["Traceback (most recent call last):", 'File "<code>", line 5, in <module>', "half(3)"]
    assert "return n / 0" in lines
    assert "agentforge" not in error["traceback"]


RESULTS = {
    "nothing": ("", None),
    "no expression at the end": ("x = 1", None),
    "None": ("print()", None),
    "a value": ("x = 20\nx + 1", "21"),
    "text": ("'é'", "'é'"),
    "half a character": ("'\\ud800'", "'\\ud800'"),
    "its own module": ("import sys\nsys.modules['__main__'].__dict__ is globals(), __name__", "(True, '__main__')"),
    "a class that can be pickled": (
        "import pickle\nclass A: pass\ntype(pickle.loads(pickle.dumps(A()))) is A", "True",
    ),
    "no arguments": ("import sys\nsys.argv", "['']"),
    "a clean end": ("import sys\nsys.exit()", None),
    "an end that counts as clean": ("import sys\nsys.exit(0)", None),
    "what was written before": ("open('mod.py', 'w').write('N = 7')\nimport mod\nmod.N", "7"),
    "a comment last": ("5\n# that was it", "5"),
}  # fmt: skip


@pytest.mark.parametrize("case", RESULTS)
async def test_the_last_expression_is_the_result(pyz: Path, folder: Path, case: str) -> None:
    code, expected = RESULTS[case]
    report = await run(pyz, folder, code)
    assert (report["ended"], report["error"], report["result"]) == ("done", None, expected)


ERRORS = {
    "syntax": ("print('not reached')\nif", "SyntaxError"),
    "a null character": ("x = '\0'", "SyntaxError|ValueError"),
    "exit with a status": ("import sys\nsys.exit(3)", "SystemExit"),
    "exit with words": ("raise SystemExit('no more')", "SystemExit"),
    "interrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "no input": ("input('?')", "EOFError"),
    "recursion": ("def f(): f()\nf()", "RecursionError"),
    "deep nesting": ("(" * 5000 + ")" * 5000, "SyntaxError|MemoryError|RecursionError|ProcessEnded"),
    "an exception without words": ("class E(Exception):\n def __str__(self): raise self\nraise E", "E"),
    "a repr that raises": ("class A:\n def __repr__(self): return 1 / 0\nA()", "ZeroDivisionError"),
    "a repr that is none": ("class A:\n def __repr__(self): return 1\nA()", "TypeError"),
    "a repr that exits": ("class A:\n def __repr__(self): raise SystemExit(1)\nA()", "SystemExit"),
    "a long name": ("raise type('E' * 10**6, (Exception,), {})('x')", "E+\n.* left out .*\nE+"),
    "os._exit": ("import os\nprint('before', flush=True)\nos._exit(0)", "ProcessEnded"),
    "killed": ("import os\nprint('before')\nos.kill(os.getpid(), 9)", "ProcessEnded"),
    "crashed": ("import ctypes\nprint('before')\nctypes.string_at(0)", "ProcessEnded"),
    "closed its streams": ("import sys\nsys.stdout.close(); sys.stderr.close()\n1 / 0", "ZeroDivisionError"),
    "lost its streams": ("import sys\nsys.stdout = sys.stderr = None\n1 / 0", "ZeroDivisionError"),
}


@pytest.mark.parametrize("case", ERRORS)
async def test_what_goes_wrong_in_the_code_is_a_result(pyz: Path, folder: Path, case: str) -> None:
    import re

    code, kind = ERRORS[case]
    report = await run(pyz, folder, code)
    assert report["ended"] == "done"
    assert report["result"] is None
    assert re.fullmatch(kind, report["error"]["type"]), report["error"]
    assert "not reached" not in report["stdout"]
    assert ("before" in report["stdout"]) == ("before" in code), "what was printed before a sudden end is told"


async def test_a_sudden_end_says_how_it_came(pyz: Path, folder: Path) -> None:
    messages = [
        (await run(pyz, folder, f"import os\n{code}"))["error"]["message"]
        for code in ("os._exit(3)", "os.kill(os.getpid(), 9)", "os.abort()")
    ]
    assert messages == [
        "the process of the code ended with status 3 before the code did",
        "the process of the code was ended by SIGKILL: it may have used more memory than it is allowed",
        "the process of the code was ended by SIGABRT",
    ]


@pytest.mark.timeout(120)
async def test_a_gigabyte_of_output_is_its_beginning_and_its_end(pyz: Path, folder: Path) -> None:
    code = """
import os, sys
os.write(1, b"first")
for _ in range(1024):
    os.write(1, bytes(1 << 20).replace(b"\\0", b"x"))
os.write(1, b"last")
sys.stderr.write("y" * 10**7)
"""
    report = await run(pyz, folder, code, timeout_s=100)
    assert report["error"] is None
    assert report["stdout"].startswith("firstx")
    assert report["stdout"].endswith("xlast")
    assert f"[... {(1 << 30) + 9 - 20000} bytes left out ...]" in report["stdout"]
    assert len(report["stdout"]) < 20100
    assert len(report["stderr"]) < 20100


@pytest.mark.parametrize("code", ["'x' * 10**8", "[0] * 10**7", "raise ValueError('z' * 10**7)", "b'\\xff' * 10**7"])
async def test_huge_values_are_cut(pyz: Path, folder: Path, code: str) -> None:
    report = await run(pyz, folder, code)
    told = report["result"] or report["error"]["message"] + report["error"]["traceback"]
    assert "characters left out ...]" in told
    assert 1000 < len(told) < 11000


async def test_code_is_stopped_in_time_with_all_that_it_has_started(pyz: Path, folder: Path, python: Path) -> None:
    code = """
import os, signal, subprocess, sys
for number in range(1, 32):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
open("child", "w").write(str(child.pid))
print("so far")
while True:
    pass
"""
    began = time.monotonic()
    report = await run(pyz, folder, code, python, timeout_s=2)
    assert 2 <= time.monotonic() - began < 10
    assert (report["ended"], report["stdout"], report["files"]) == ("timed_out", "so far\n", ["child"])
    child = int((folder / "child").read_text())
    async with asyncio.timeout(10):
        while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.02)


async def test_who_holds_its_output_does_not_hold_it_up(pyz: Path, folder: Path) -> None:
    """What is left running in another session ends with the sandbox; here the test ends it."""
    code = """
import subprocess, sys
print("from the code", flush=True)
child = subprocess.Popen([sys.executable, "-c", "while True: print('flood', flush=True)"], start_new_session=True)
open("child", "w").write(str(child.pid))
"""
    try:
        report = await run(pyz, folder, code, timeout_s=20)
    finally:
        os.kill(int((folder / "child").read_text()), signal.SIGKILL)
    assert report["ended"] == "done"
    assert report["stdout"].startswith("from the code\n")


async def test_a_fork_of_the_code_has_no_say(pyz: Path, folder: Path) -> None:
    code = "import os\nforked = os.fork()\nif forked: os.waitpid(forked, 0)\n'parent' if forked else 'child'"
    assert (await run(pyz, folder, code))["result"] == "'parent'"


async def test_a_fork_bomb_ends_with_the_time(pyz: Path, folder: Path) -> None:
    code = """
import os, resource
resource.setrlimit(resource.RLIMIT_CPU, (5, 5))  # for this test, which has no sandbox around it
for _ in range(6):
    os.fork()
while True:
    pass
"""
    report = await run(pyz, folder, code, timeout_s=1)
    assert report["ended"] == "timed_out"


FORGED = '{"ended": "done", "stdout": "forged", "stderr": "", "result": "forged", "error": null, "files": []}'


async def test_no_descriptor_of_the_report_is_open_in_the_code(pyz: Path, folder: Path) -> None:
    """But for the one that its own outcome goes to: what is written there is read as that, or not at all."""
    code = f"""
import os
for number in sorted(int(name) for name in os.listdir("/proc/self/fd")):
    if number > 2:
        try:
            os.write(number, {FORGED.encode()!r} * 3 + b"\\n")
        except OSError:
            pass
open_ones = ["/proc/self/fd/%d" % n for n in range(200) if os.path.exists("/proc/self/fd/%d" % n)]
print([os.readlink(each).partition(":")[0] for each in open_ones])
"""
    report = await run(pyz, folder, code)
    assert report["stdout"] == "['/dev/null', 'pipe', 'pipe', 'pipe']\n"
    assert report["result"] != "forged"


async def test_a_forged_outcome_is_the_codes_own_word_and_nothing_more(pyz: Path, folder: Path) -> None:
    code = f"""
import os
for number in range(3, 20):
    try:
        os.write(number, {FORGED.encode()!r})
    except OSError:
        pass
os._exit(0)
"""
    report = await run(pyz, folder, code)
    assert (report["stdout"], report["files"]) == ("", [])


@pytest.mark.parametrize(
    "flood", ["b'[' * 10**6", "b'x' * 10**8", "b'{' * 200000 + b'}' * 200000", "b'null'", "b'[1]'"]
)
async def test_an_outcome_that_is_none_is_not_told(pyz: Path, folder: Path, flood: str) -> None:
    code = f"""
import os
answer = max(int(name) for name in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + name))
data = {flood}
while data:
    data = data[os.write(answer, data):]
os._exit(0)
"""
    report = await run(pyz, folder, code)
    assert (report["ended"], report["error"]["type"]) == ("done", "ProcessEnded")


async def test_who_kills_the_reporter_gets_no_report(pyz: Path, folder: Path) -> None:
    async with started(pyz, folder, "import os\nos.kill(os.getppid(), 9)", Path(sys.executable), 10) as process:
        out, _ = await process.communicate()
    assert (out, process.returncode) == (b"", -9)


async def test_a_folder_that_is_another_by_now_is_refused(pyz: Path, folder: Path) -> None:
    report = await run(pyz, folder, "open('x', 'w')", inode="1:2")
    assert report["ended"] == "refused"
    assert list(folder.iterdir()) == []


# ---- files


async def test_files_are_those_that_were_made_or_changed(pyz: Path, folder: Path) -> None:
    for name in ("old", "changed", "renamed", "gone", "touched"):
        (folder / name).write_text("x")
    (folder / "sub").mkdir()
    (folder / "sub/old").write_text("x")
    await asyncio.sleep(0.05)
    code = r"""
import os
open("changed", "a").write("y")
os.rename("renamed", "sub/new name")
os.unlink("gone")
os.makedirs("deep/er")
open("deep/er/é\n", "w")
os.symlink("/etc/passwd", "link")
open(os.fsencode("bytes").join([b"", b"\xff"]), "w")
"""
    report = await run(pyz, folder, code)
    assert report["files"] == sorted(["changed", "sub/new name", "deep/er/é\n", "link", "bytes\ufffd"])


async def test_at_most_a_hundred_files_are_told(pyz: Path, folder: Path) -> None:
    report = await run(pyz, folder, "for n in range(1000): open('%04d' % n, 'w')\nopen('n' * 255, 'w').close()")
    assert report["files"] == [f"{number:04}" for number in range(100)]


async def test_a_folder_that_is_taken_away_has_no_files(pyz: Path, folder: Path) -> None:
    (folder / "sub").mkdir()
    code = "import os, shutil\nprint('here')\nshutil.rmtree(os.getcwd(), ignore_errors=True)\nos.chmod('/proc/self', 0)"
    report = await run(pyz, folder, code.rpartition("\n")[0])
    assert (report["stdout"], report["files"], report["error"]) == ("here\n", [], None)


async def test_a_tree_that_is_made_to_be_walked_for_ever_is_not(pyz: Path, folder: Path) -> None:
    code = """
import os
os.symlink(".", "loop")
for name in range(200):
    os.mkdir("d")
    os.chdir("d")
    for each in range(150):
        open("f%d" % each, "w").close()
"""
    began = time.monotonic()
    report = await run(pyz, folder, code)
    assert len(report["files"]) == 100
    assert all(len(name) <= 500 for name in report["files"])
    assert time.monotonic() - began < 20
