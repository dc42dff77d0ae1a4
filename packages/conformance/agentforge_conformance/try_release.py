"""Runs the suite of adapters on one release in its built environment, and says how each test ended.

    python -m agentforge_conformance.try_release --folder FOLDER --release 1.4.7 --python PYTHON [--capability tools]

FOLDER is that of the framework's manifest, PYTHON the interpreter of the environment. On stdout is one JSON object a
line: first `{"tests": N}`, then for each test `name`, `capability`, `outcome` (`passed`, `failed`, `skipped`),
`duration_ms` and `message` (why it failed or was skipped), last `{"ended": true}`. What the tests print is not shown.
`agentforge compat` runs this as a process of its own, so that a framework which kills it harms nobody else.
"""

import argparse
import json
import os
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import IO, Any

import pytest

from agentforge.frameworks import Catalogue, Release
from agentforge.frameworks.loading import load_manifest
from agentforge_conformance.capabilities import CAPABILITIES, capability_of

__all__ = ["PLUGIN", "main"]

PLUGIN = "agentforge-release"
"""The name under which pytest knows what has the release and the interpreter of its environment."""
_MESSAGE = 4000


class _Teller:
    """A pytest plugin: gives the suite its release, and writes a line for each test."""

    def __init__(self, release: Release, python: Path, capabilities: Sequence[str], out: IO[str]) -> None:
        self.release, self.python = release, python
        self._capabilities, self._out = frozenset(capabilities), out
        self._known: dict[str, str] = {}
        self._begun: dict[str, dict[str, Any]] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        for item in items:
            self._known[item.nodeid] = capability_of(getattr(item, "function", None)) or ""
        if self._capabilities:
            kept = [item for item in items if self._known[item.nodeid] in self._capabilities]
            config.hook.pytest_deselected(items=[item for item in items if item not in kept])
            items[:] = kept
        self._write({"tests": len(items)})

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            sys.stderr.write(f"{report.longrepr}\n")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: "pytest.CallInfo[None]"
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        found = self._begun.setdefault(
            item.nodeid,
            {
                "name": item.name,
                "capability": self._known[item.nodeid],
                "outcome": "passed",
                "duration_ms": 0,
                "message": "",
            },
        )
        found["duration_ms"] += round(1000 * report.duration)
        if report.failed or (report.skipped and found["outcome"] == "passed"):
            found |= {"outcome": report.outcome, "message": _said(report)}
        if report.when == "teardown":
            self._write(self._begun.pop(item.nodeid))
        return report

    def _write(self, line: dict[str, Any]) -> None:
        self._out.write(json.dumps(line) + "\n")
        self._out.flush()


def _said(report: pytest.TestReport) -> str:
    """Return why a test was skipped, or the end of what it failed with."""
    if report.skipped and isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(crash.message) if crash is not None else str(report.longrepr)
    return text[:_MESSAGE]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite; returns 0 where no test failed, 1 where one did, and pytest's own codes where it could not run.

    It has not `ended` then.
    """
    parser = argparse.ArgumentParser(prog="agentforge_conformance.try_release", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--release", required=True)
    parser.add_argument("--python", type=Path, required=True)
    parser.add_argument("--capability", action="append", default=[], choices=sorted(CAPABILITIES))
    parser.add_argument("--parent", type=int, default=0, help="end with this process, and with stdin")
    options = parser.parse_args(arguments)
    if options.parent:
        from agentforge.gateway.embedded.lifetime import end_with_parent

        end_with_parent(options.parent, os.dup(sys.stdin.fileno()))  # pytest puts another file in its place
    manifest = load_manifest(options.folder)
    release = Catalogue([manifest]).resolve(f"{manifest.name}=={options.release}")
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as out:
        teller = _Teller(release, options.python, options.capability, out)
        code = int(pytest.main(_options(), plugins=[_Named(teller), "pytest_asyncio.plugin"]))
        if code in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            out.write('{"ended": true}\n')
    return code


class _Named:
    """Registers the teller under the name that the suite asks for."""

    def __init__(self, teller: _Teller) -> None:
        self._teller = teller

    def pytest_configure(self, config: pytest.Config) -> None:
        config.pluginmanager.register(self._teller, PLUGIN)


def _options() -> list[str]:
    """Return options that make a run the same, whatever is configured and installed around it."""
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ.pop("PYTEST_ADDOPTS", None)
    settings = ("asyncio_mode=auto", "asyncio_default_fixture_loop_scope=function", "python_files=*.py")
    options = ["-c", os.devnull, "--import-mode=importlib", "-p", "no:cacheprovider", "-p", "no:terminal"]
    pytest.register_assert_rewrite("agentforge_conformance.adapter")
    return [*options, *(part for each in settings for part in ("-o", each)), str(_tests())]


def _tests() -> Path:
    return Path(__file__).with_name("release_tests.py")


if __name__ == "__main__":
    sys.exit(main())
