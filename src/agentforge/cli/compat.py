"""`agentforge compat`: what each release can do, proved by the conformance suite."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentforge.cli.output import Table, print_json, print_text, say, say_failure
from agentforge.cli.progress import Progress
from agentforge.cli.session import JsonOption, ProjectOption, with_forge

if TYPE_CHECKING:
    from agentforge.api.client import Forge

__all__ = ["EXAMPLE", "compat", "shown_report"]

EXAMPLE = "Example: agentforge compat langchain@1 crewai==0.86.0"
_PASSED = ("passed", "unavailable")


def compat(
    releases: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RELEASE...]",
            help="name or name@series: all its tested releases; name==version: that one. Default: all there are.",
        ),
    ] = None,
    capabilities: Annotated[
        list[str] | None,
        typer.Option("--capability", help="Run only the tests of this capability, repeatable; nothing is kept."),
    ] = None,
    only_missing: Annotated[
        bool, typer.Option("--only-missing", help="Go on: what passed as it is now is not tried again.")
    ] = False,
    junit: Annotated[Path | None, typer.Option("--junit", help="Write every test to a JUnit XML file too.")] = None,
    as_json: JsonOption = False,
    project: ProjectOption = Path(),
) -> None:
    """Try releases with the conformance suite: what each can do, by capability. Exits 1 where a test failed."""
    body = {"on": releases or [], "capabilities": capabilities or [], "only_missing": only_missing}
    reports: list[dict[str, Any]] = []

    async def work(forge: "Forge") -> None:
        with Progress() as progress:
            async for report in _reports(forge, body, progress):
                reports.append(report)
                progress.clear()
                if as_json:
                    print_json(shown_report(report))

    try:
        with_forge(project, work)
    finally:
        if junit is not None and reports:
            from agentforge.cli.junit import junit_xml

            junit.write_bytes(junit_xml(reports))
    if not as_json:
        _print(reports)
    if any(report["status"] not in _PASSED for report in reports):
        raise typer.Exit(1)


def shown_report(report: dict[str, Any]) -> dict[str, Any]:
    """Return a report as `--json` prints it: without its single tests; failures are with their capabilities."""
    return {key: value for key, value in report.items() if key != "tests"}


async def _reports(forge: "Forge", body: dict[str, Any], progress: Progress) -> Any:
    from contextlib import aclosing

    from agentforge.errors import ErrorInfo
    from agentforge.errors.host import RemoteError

    async with aclosing(forge.connection.stream("POST", "/v1/compat", body)) as events:
        async for kind, data in events:
            if kind == "progress":
                progress.stage(data)
            elif kind == "test":
                progress.count(data["release"], data["done"], data["total"])
            elif kind == "report":
                progress.done(data["reference"])
                progress.say(_summary(data))
                yield data
            elif kind == "error":
                raise RemoteError(ErrorInfo.from_dict(data), int(data.get("exit_code", 1)))


def _summary(report: dict[str, Any]) -> str:
    if report["error"] is not None:
        first = report["error"]["message"].partition("\n")[0]
        return f"{report['reference']}: {'not tried' if report['status'] == 'unavailable' else 'error'}: {first}"
    counts = f"{report['passed']} passed, {report['failed']} failed, {report['skipped']} skipped"
    return f"{report['reference']}: {report['status']} ({counts}, {report['duration_ms'] / 1000:.0f} s)"


def _print(reports: Sequence[dict[str, Any]]) -> None:
    """Print one table a framework, a column a release; then why a result is not `pass`."""
    tried = [report for report in reports if report["error"] is None]
    for framework in dict.fromkeys(report["framework"] for report in tried):
        _print_framework(framework, [report for report in tried if report["framework"] == framework])
    for report in reports:
        if report["status"] == "error":
            from agentforge.errors import ErrorInfo

            say_failure(ErrorInfo.from_dict(report["error"]), f"{report['reference']}: ")


def _print_framework(framework: str, reports: Sequence[dict[str, Any]]) -> None:
    table = Table(framework.upper(), *(report["release"] for report in reports))
    table.add("python", *(report["python"] for report in reports))
    for name in dict.fromkeys(name for report in reports for name in report["capabilities"]):
        table.add(name, *(report["capabilities"].get(name, {}).get("result") for report in reports))
    table.add("tests passed", *(_share(report) for report in reports))
    table.print()
    for line in _notes(reports):
        print_text(f"  {line}")
    print_text("")


def _share(report: dict[str, Any]) -> str:
    return f"{report['passed']} of {report['passed'] + report['failed']}"


def _notes(reports: Sequence[dict[str, Any]]) -> Iterator[str]:
    for report in reports:
        for name, each in report["capabilities"].items():
            for failure in each["failures"]:
                said = failure["message"].strip().partition("\n")[0]
                yield f"{report['release']} {name}: {failure['test']}: {said}"
            if each["note"] and not each["failures"] and each["result"] != "pass":
                yield f"{report['release']} {name}: {each['note']}"
    if any(report["failed"] for report in reports):
        say("hint: `--json` has the failures in full")
