"""What `agentforge compat` makes of outcomes; that every test of the suite counts for something; the matrix's data."""

import importlib.util
import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

from agentforge.cli.junit import junit_xml
from agentforge.errors.frameworks import CapabilityAbsent
from agentforge.frameworks import Capability, Catalogue, require_able
from agentforge.lifecycle.matrix import Outcome, capability_results, conformance
from agentforge_conformance.adapter import AdapterSuite
from agentforge_conformance.capabilities import CAPABILITIES, capability_of, proves

ROOT = Path(__file__).parents[2]
DATA = ROOT / "docs" / "reference" / "compatibility.jsonl"
FULL, PARTIAL = Capability(level="full"), Capability(level="partial", note="Half of it.")
ABSENT = Capability(level="absent", note="It has none.")


OF_NATIVE_AGENTS = {"handoff", "rag"}
"""What a portable agent has not, so that no test of the suite can be the same for all frameworks."""


def passed(capability: str, name: str = "test_p") -> Outcome:
    return Outcome(name, capability, "passed", 10)


def failed(capability: str, message: str = "assert 1 == 2\n  more") -> Outcome:
    return Outcome("test_f", capability, "failed", 20, message)


def skipped(capability: str, message: str) -> Outcome:
    return Outcome("test_s", capability, "skipped", 0, message)


@pytest.mark.parametrize(
    ("declared", "outcomes", "result", "note"),
    [
        (FULL, [passed("x")], "pass", ""),
        (FULL, [passed("x"), failed("x")], "fail", "assert 1 == 2"),
        (PARTIAL, [passed("x")], "partial", "Half of it."),
        (PARTIAL, [failed("x")], "fail", "assert 1 == 2"),
        (ABSENT, [skipped("x", "x is absent: It has none.")], "absent", "It has none."),
        (ABSENT, [failed("x")], "fail", "assert 1 == 2"),
        (Capability(level="todo", note="Later."), [], "todo", "Later."),
        (FULL, [], "untested", "the suite has no test of it, only the adapter may"),
        (FULL, [skipped("x", "tools is absent: None.")], "untested", "tools is absent: None."),
        (FULL, [passed("x"), skipped("x", "tools is absent: None.")], "pass", "without 1 test: tools is absent"),
        (None, [passed("x")], "pass", ""),
        (None, [failed("x")], "fail", "assert 1 == 2"),
        (None, [skipped("x", "x is not declared")], "absent", "x is not declared"),
    ],
)
def test_a_capability_is_judged_by_its_tests_and_then_by_what_is_declared(
    declared: Capability | None, outcomes: list[Outcome], result: str, note: str
) -> None:
    found = capability_results({"x": declared} if declared else {}, outcomes, ["x"])
    assert (found["x"]["result"], found["x"]["note"]) == (result, note)
    assert len(found["x"]["failures"]) == sum(each.outcome == "failed" for each in outcomes)


def test_results_come_in_the_suites_order_and_others_last() -> None:
    found = capability_results({"zeal": FULL, "b": FULL, "art": FULL}, [passed("a"), passed("b")], ["b", "a", "c"])
    assert list(found) == ["b", "a", "art", "zeal"]


def test_conformance_is_the_share_of_the_tests_that_ran() -> None:
    assert conformance([passed("x"), failed("x"), failed("y"), passed("y"), skipped("z", "")]) == 50
    assert conformance([skipped("x", "")]) is None


def report(**changes: Any) -> dict[str, Any]:
    given = {
        "reference": "kit==1", "at": "2026-01-01T00:00:00+00:00", "status": "passed", "error": None,
        "passed": 1, "failed": 0, "skipped": 0, "duration_ms": 10, "tests": [],
    }  # fmt: skip
    return {**given, **changes}


def case(outcome: Outcome) -> dict[str, Any]:
    return {name: getattr(outcome, name) for name in Outcome.__slots__}


def test_junit_has_every_test_with_what_became_of_it() -> None:
    odd = failed("tools", "said \x00\x1b[31m <b> & ☃")
    tests = [case(each) for each in (passed("basics"), odd, skipped("threads", "none"))]
    error = {"code": "AF341", "message": "broke off"}
    found = junit_xml(
        [
            report(tests=tests, failed=1, skipped=1, status="failed"),
            report(reference="dead==1", status="error", error=error, passed=0),
            report(reference="else==1", status="unavailable", error=error, passed=0),
        ]
    )
    tried, dead, unavailable = ElementTree.fromstring(found)
    assert {key: tried.get(key) for key in ("tests", "failures", "errors", "skipped")} == {
        "tests": "3", "failures": "1", "errors": "0", "skipped": "1",
    }  # fmt: skip
    assert [[child.tag for child in each] for each in tried] == [[], ["failure"], ["skipped"]]
    assert tried[1].find("failure").text == "said \ufffd\ufffd[31m <b> & ☃"  # type: ignore[union-attr]
    assert tried[1].get("classname") == "kit==1.tools"
    assert (dead.get("errors"), dead[0][0].tag, dead[0][0].get("message")) == ("1", "error", "AF341: broke off")
    assert (unavailable.get("errors"), unavailable[0][0].tag) == ("0", "skipped")


def suite_tests() -> dict[str, str | None]:
    tests = inspect.getmembers(AdapterSuite, inspect.isfunction)
    return {name: capability_of(test) for name, test in tests if name.startswith("test_")}


def test_every_test_of_the_suite_proves_a_capability_and_every_capability_has_one() -> None:
    assert len(suite_tests()) > 30
    assert {name for name, capability in suite_tests().items() if capability is None} == set()
    assert set(suite_tests().values()) == set(CAPABILITIES)


def test_a_test_of_no_capability_is_refused() -> None:
    with pytest.raises(ValueError, match="juggling"):
        proves("juggling")


def test_what_the_shipped_manifests_declare_is_proved_by_the_suite() -> None:
    catalogue = Catalogue.discover()
    declared = {name for each in catalogue.names() for r in catalogue.releases(each) for name in r.traits.capabilities}
    assert declared - OF_NATIVE_AGENTS <= set(CAPABILITIES)


# ---- needs of agents


def test_a_release_is_refused_only_for_what_its_manifest_calls_absent() -> None:
    catalogue = Catalogue.discover()
    old, tested = catalogue.resolve("haystack==2.0.1"), catalogue.releases("haystack")
    require_able(old, {"structured-output": "It has an output"}, tested)
    require_able(old, {"juggling": "It juggles"}, tested)  # nobody has said anything of it
    require_able(catalogue.resolve("haystack"), {"tools": "It has tools"}, tested)
    with pytest.raises(CapabilityAbsent) as caught:
        require_able(old, {"tools": "The agent `x` has tools"}, tested)
    assert "The agent `x` has tools, and Haystack 2.0.1 can't do that" in caught.value.message
    assert caught.value.hint is not None
    assert f"`haystack=={tested[0].version}`" in caught.value.hint


# ---- the committed matrix


def data() -> list[dict[str, Any]]:
    return [json.loads(line) for line in DATA.read_text("utf-8").splitlines()]


def test_the_matrix_has_every_tested_release() -> None:
    catalogue = Catalogue.discover()
    tested = {release.reference for name in catalogue.names() for release in catalogue.releases(name)}
    assert {each["reference"] for each in data()} == tested, "run `make matrix`"


def test_the_matrix_was_made_whole_and_nothing_in_it_failed() -> None:
    for each in data():
        if each["status"] == "unavailable":  # a series of Python itself that the machine had not
            assert each["framework"] == "python"
            continue
        assert (each["status"], each["failed"], each["error"]) == ("passed", 0, None), each["reference"]
        assert set(CAPABILITIES) <= set(each["capabilities"]), each["reference"]
        assert each["passed"] >= 30, each["reference"]
        untested = {name for name, value in each["capabilities"].items() if value["result"] == "untested"}
        assert untested <= OF_NATIVE_AGENTS, each["reference"]


def test_the_matrix_says_what_the_manifests_declare_now() -> None:
    catalogue = Catalogue.discover()
    for each in data():
        if each["error"] is not None:
            continue
        for name, declared in catalogue.resolve(each["reference"]).traits.capabilities.items():
            found = each["capabilities"][name]
            if declared.level == "full":
                wanted = "untested" if name in OF_NATIVE_AGENTS else "pass"
                assert found["result"] == wanted, (each["reference"], name)
            else:
                assert (found["result"], found["note"]) == (declared.level, declared.note), (each["reference"], name)


@pytest.fixture(scope="module")
def generator() -> Iterator[ModuleType]:
    before = list(sys.path)
    sys.path.insert(0, str(ROOT / "docs"))
    spec = importlib.util.find_spec("generators.compatibility")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = before


def test_the_page_shows_a_failure_and_why_a_release_was_not_tried(
    generator: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    good = next(each for each in data() if each["error"] is None)
    bad = json.loads(json.dumps(good)) | {"release": "0.0.1"}
    bad["capabilities"]["tools"] |= {"result": "fail", "note": "it dropped an argument"}
    gone = {**good, "reference": "python==3.98", "error": {"code": "AF306", "message": "none"}, "status": "unavailable"}
    file = tmp_path / "data.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in (good, bad, gone)))
    monkeypatch.setattr(generator, "DATA", file)
    page = generator.compatibility()
    assert f"|  | {good['release']} | 0.0.1 |" in page
    assert "| `tools` | pass | **fail** |" in page
    assert "- `tools` fail in 0.0.1: it dropped an argument" in page
    assert "| `python==3.98` | no Python for it on the machine ([AF306](../errors/AF306.md)) |" in page
