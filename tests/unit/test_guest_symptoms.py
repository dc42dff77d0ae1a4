"""What code sees of a limit becomes the limit's error, on the oldest Python of workers and on this one."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentforge.errors.sandbox import REPORTED_LIMITS

WORKER = Path(__file__).parents[2] / "packages" / "worker"
PYTHONS = sorted({sys.executable, *map(str, Path.home().glob(".pyenv/versions/3.8*/bin/python"))})

PROGRAM = """
import asyncio, ctypes, errno, json, linecache, os, resource, socket, subprocess, sys, tempfile, threading

sys.path.insert(0, sys.argv[1])
from agentforge_worker.runtime.failures import translate
from agentforge_worker.adapter import EffectFailed, StepLimitReached


def memory():
    bytearray(1 << 62)

def memory_of_the_system():
    raise OSError(errno.ENOMEM, "Cannot allocate memory")

def open_files():
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
    held = [open(os.devnull) for _ in range(64)]

def file_size():
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    with open(os.path.join(sys.argv[2], "large"), "wb") as file:
        file.write(bytes(5000))

def file_size_of_a_program():
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    write = "exec dd if=/dev/zero of=%s bs=5000 count=1 2>/dev/null" % os.path.join(sys.argv[2], "large")
    subprocess.run(["sh", "-c", write], check=True)

def disk():
    with open("/dev/full", "wb") as file:
        file.write(b"x")

def scratch():
    tempfile._candidate_tempdir_list = lambda: ["/proc/self/fdinfo"]
    tempfile.tempdir = None
    tempfile.gettempdir()

def no_more_processes():
    linecache.getlines(__file__)
    if os.geteuid() == 0:
        os.setresuid(65534, 65534, 65534)  # the limit does not hold for root
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))

def thread():
    no_more_processes()
    threading.Thread(target=print).start()

def fork():
    no_more_processes()
    os._exit(0) if os.fork() == 0 else None

def program():
    no_more_processes()
    subprocess.Popen(["/bin/true"])

def wrapped():
    try:
        memory()
    except MemoryError as error:
        raise ValueError("could not answer") from error

def while_handling():
    try:
        disk()
    except OSError:
        raise KeyError("gone")

def grouped():
    group = type("Several", (Exception,), {})()
    group.exceptions = (ValueError("one"), OSError(errno.EMFILE, "Too many open files"))
    raise group

# ---- what is none

def socket_that_has_nothing():
    one, other = socket.socketpair()
    one.setblocking(False)
    one.recv(1)

def mistake():
    raise ValueError("disk full of memory")

def missing():
    open("/nowhere/at/all")

def effect():
    try:
        memory()
    except MemoryError:
        raise EffectFailed("AF603", "the tool failed")

def steps():
    try:
        memory()
    except MemoryError:
        raise StepLimitReached(3)

try:
    globals()[sys.argv[3]]()
except BaseException as error:
    sys.stdout.write(json.dumps(translate(error).data))
"""


def translated(tmp_path: Path, python: str, what: str) -> dict[str, Any]:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [python, "-I", str(program), str(WORKER), str(tmp_path), what]
    said = subprocess.run(command, capture_output=True, timeout=60, check=True)
    return dict(json.loads(said.stdout))


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("memory", "AF442"),
        ("memory_of_the_system", "AF442"),
        ("thread", "AF443"),
        ("fork", "AF443"),
        ("program", "AF443"),
        ("open_files", "AF444"),
        ("file_size", "AF445"),
        ("file_size_of_a_program", "AF445"),
        ("disk", "AF446"),
        ("scratch", "AF446"),
        ("wrapped", "AF442"),
        ("while_handling", "AF446"),
        ("grouped", "AF444"),
    ],
)
def test_what_code_sees_of_a_limit_becomes_the_limits_error(tmp_path: Path, python: str, what: str, code: str) -> None:
    error = translated(tmp_path, python, what)
    assert (error["code"], error["origin"]) == (code, "user"), error
    assert code in REPORTED_LIMITS
    assert "under `limits`" in error["hint"]
    assert "Traceback" in error["details"]["traceback"]


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("socket_that_has_nothing", "AF420"),
        ("mistake", "AF420"),
        ("missing", "AF420"),
        ("effect", "AF603"),
        ("steps", "AF425"),
    ],
)
def test_what_only_looks_like_a_limit_stays_what_it_is(tmp_path: Path, what: str, code: str) -> None:
    assert translated(tmp_path, sys.executable, what)["code"] == code
