"""Makes the attacks from inside a worker and tells what came of each. Called by the agent of the test."""

import json
import os
import select
import signal
import sys
import threading
import time
import traceback
from typing import Any, Dict, Optional, Union

from . import guest
from .registry import ATTACKS, Attack, World

__all__ = ["attack_all", "attack_bare", "one", "tell_of"]

Report = Dict[str, Optional[str]]
_LONGEST = 300


def attack_all(given: Dict[str, Any]) -> Any:
    """Make the attacks that are named, one after the other; return a report of each by its name.

    With `alone` it is one attack, whose evidence is returned as it is, however long.
    """
    world = World(given["world"])
    where = _where()
    world.update(where)
    if given.get("alone"):
        return one(ATTACKS[given["names"][0]], world, whole=True)
    return {"reports": {name: one(ATTACKS[name], world) for name in given["names"]}, **where}


def attack_bare(name: str, world: Dict[str, Any]) -> Report:
    """Make one attack in a process that is no worker."""
    return one(ATTACKS[name], World(world))


def _where() -> Dict[str, Any]:
    """Return where the worker's own parts are."""
    files = [str(getattr(module, "__file__", "") or "") for module in list(sys.modules.values())]
    return {
        "workspace": guest.workspace(),
        "agent_version": os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
        "adapters": sorted({file for file in files if "/adapters/" in file and file.endswith("/adapter.py")}),
        "worker_zips": sorted({file.partition(".pyz")[0] + ".pyz" for file in files if ".pyz/" in file}),
    }


def one(attack: Attack, world: World, *, whole: bool = False) -> Report:
    """Return {evidence} if an attack worked, else {blocked} with why not."""
    began = time.monotonic()
    report = _tried(attack, world, whole=whole) if attack.inside else _in_a_fork(attack, world)
    report["seconds"] = "%.2f" % (time.monotonic() - began)
    return report


def _tried(attack: Attack, world: World, *, whole: bool = False) -> Report:
    try:
        return tell_of(attack.run(world), whole=whole)
    except BaseException as error:
        return {"evidence": None, "blocked": _said(error)}


def tell_of(evidence: Union[None, str, bytes], *, whole: bool = False) -> Report:
    """Return a report of what an attack returned."""
    if not evidence:
        return {"evidence": None, "blocked": "nothing came of it"}
    text = evidence.decode("utf-8", "replace") if isinstance(evidence, bytes) else str(evidence)
    return {"evidence": text if whole else text[:_LONGEST], "blocked": None}


def _said(error: BaseException) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return ("%s: %s (%s:%s)" % (type(error).__name__, error, os.path.basename(where.filename), where.lineno))[:_LONGEST]


def _in_a_fork(attack: Attack, world: World) -> Report:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reader)
            os.setpgid(0, 0)
            _behave()
            os.write(writer, json.dumps(_tried(attack, world)).encode() + b"\n")
        finally:
            os._exit(0)
    os.close(writer)
    try:
        return _heard(reader, attack.timeout_s)
    finally:
        os.close(reader)
        _end(child)


def _behave() -> None:
    """Have signals do what they do to any program: the worker's loop is not in this process."""
    signal.set_wakeup_fd(-1) if threading.current_thread() is threading.main_thread() else None


def _heard(reader: int, patience_s: float) -> Report:
    deadline, data = time.monotonic() + patience_s, b""
    while True:
        ready, _, _ = select.select([reader], [], [], max(deadline - time.monotonic(), 0))
        if not ready:
            return {"evidence": None, "blocked": "it took over %g s" % patience_s}
        piece = os.read(reader, 65536)
        data += piece
        if not piece or data.endswith(b"\n"):  # what the attack has started may hold the pipe open
            break
    if not data:
        return {"evidence": None, "blocked": "its process was ended"}
    report: Report = json.loads(data)
    return report


def _end(child: int) -> None:
    try:
        os.killpg(child, signal.SIGKILL)
    except OSError:
        pass
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        try:
            if os.waitpid(child, os.WNOHANG)[0]:
                return
        except ChildProcessError:
            return
        time.sleep(0.005)
