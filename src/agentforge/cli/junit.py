"""Reports of the conformance suite as JUnit XML, which continuous integration knows how to show."""

import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

__all__ = ["junit_xml"]

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(reports: Sequence[dict[str, Any]]) -> bytes:
    """Return a document with a test suite a release; a release that could not be tried is one test with an error."""
    root = ElementTree.Element("testsuites", name="agentforge compat")
    for report in reports:
        _add_suite(root, report)
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, "utf-8", xml_declaration=True)) + b"\n"


def _add_suite(root: ElementTree.Element, report: dict[str, Any]) -> None:
    suite = ElementTree.SubElement(root, "testsuite", name=report["reference"], timestamp=report["at"])
    cases = 0
    for test in report["tests"]:
        case = _add_case(suite, report, test["name"], test["capability"], test["duration_ms"])
        cases += 1
        if test["outcome"] == "failed":
            ElementTree.SubElement(case, "failure", message=_first(test["message"])).text = _xml(test["message"])
        elif test["outcome"] == "skipped":
            ElementTree.SubElement(case, "skipped", message=_xml(test["message"]))
    error = report["error"]
    if error is not None:
        case = _add_case(suite, report, "the release can be tried", "basics", 0)
        cases += 1
        kind = "skipped" if report["status"] == "unavailable" else "error"
        ElementTree.SubElement(case, kind, message=_xml(f"{error['code']}: {error['message']}"))
    broken = error is not None and report["status"] != "unavailable"
    figures = {"tests": cases, "failures": report["failed"], "errors": int(broken)}
    figures["skipped"] = report["skipped"] + int(error is not None and not broken)
    suite.attrib |= {key: str(value) for key, value in figures.items()}
    suite.set("time", f"{report['duration_ms'] / 1000:.3f}")


def _add_case(
    suite: ElementTree.Element, report: dict[str, Any], name: str, capability: str, duration_ms: int
) -> ElementTree.Element:
    place = f"{report['reference']}.{capability}"
    return ElementTree.SubElement(suite, "testcase", classname=place, name=_xml(name), time=f"{duration_ms / 1000:.3f}")


def _first(text: str) -> str:
    return _xml(text.strip().partition("\n")[0])


def _xml(text: str) -> str:
    """Return a text without the characters that XML can't hold."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
