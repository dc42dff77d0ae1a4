"""Starts the machines that are attacked: as root one of root's and one of an ordinary user's, else one's own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ..process.conftest import build, frameworks, home  # noqa: F401, TID252  where environments are, and that they are built

_HERE = Path(__file__).parent
_TIMEOUT_S = 600
_NAMESPACES = ("--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child")
_OWN_USER = ("--user", "--map-current-user", "--keep-caps")

Reports = Mapping[str, dict[str, Any]]


def kinds() -> list[str]:
    """Return the kinds of machines that this user can make."""
    return ["root", "user"] if os.geteuid() == 0 else ["self"]


def why_not() -> str:
    """Return why no machine can be made here; empty if one can."""
    if shutil.which("unshare") is None:
        return "`unshare` of util-linux is missing"
    tried = subprocess.run([*_unshare(kinds()[0]), "true"], capture_output=True, text=True, check=False)
    return f"private namespaces are not to be had: {tried.stderr.strip()}" if tried.returncode else ""


def _unshare(kind: str) -> list[str]:
    return ["unshare", *_NAMESPACES, *(_OWN_USER if kind == "self" else ())]


@pytest.fixture(scope="session")
def machines(home: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Reports:  # noqa: F811
    """What came of the attacks that tests were chosen for, on each kind of machine. All run at the same time."""
    if _HERE.is_relative_to("/tmp"):
        pytest.fail("the machines cover `/tmp`, where this repository lies: move it elsewhere", pytrace=False)
    for reference in ("langchain", "python"):  # before `frameworks`, whose scope is a test
        build(reference, home)
    chosen = {item.callspec.params.get("attack") for item in request.session.items if hasattr(item, "callspec")}
    names = sorted(each.name for each in chosen if each is not None)
    wanted = {item.callspec.params.get("kind") for item in request.session.items if hasattr(item, "callspec")}
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in kinds() if kind in wanted or not wanted}

    def run(kind: str) -> dict[str, Any]:
        return _machine(kind, folders[kind], home, names)

    with ThreadPoolExecutor(len(folders)) as pool:
        return dict(zip(folders, pool.map(run, folders), strict=True))


def _machine(kind: str, folder: Path, data: Path, names: Sequence[str]) -> dict[str, Any]:
    python = f"py{sys.version_info[0]}{sys.version_info[1]}"
    attacked = next(data.glob(f"environments/langchain-1*-{python}-*/venv"))
    base = Path(os.path.realpath(attacked / "bin/python")).parents[1]
    settings = {
        "home": str(data),
        "needs": [str(data)],
        "python": sys.executable,
        "site_packages": str(next(attacked.glob("lib/python3*/site-packages"))),
        "stdlib": str(next(base.glob("lib/python3.*/os.py")).parent),
        "early": str(next(data.glob(f"environments/python-*-{python}-*/venv/lib/python3*/site-packages"))),
        "variables": {"PATH": os.environ["PATH"], "NO_COLOR": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        "only": names,
    }
    command = [*_unshare(kind), sys.executable, str(_HERE / "machine.py"), str(folder), kind, json.dumps(settings)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode:
        pytest.fail(f"the machine of {kind} was not made: {done.stderr[-4000:]}", pytrace=False)
    return dict(json.loads(done.stdout))
