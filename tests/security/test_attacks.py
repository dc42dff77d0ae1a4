"""What hostile code in workers of LangChain and of plain Python tries: `attacks/` says what, `machine.py` where.

Every attack is made twice: in a worker at the level `standard`, where it must come to nothing, and at the level `none`,
where those that the sandbox or a limit stops must succeed: else a test that sees them blocked would prove nothing.
"""

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from attacks import ATTACKS, Attack

from .conftest import Reports, kinds, why_not

pytestmark = [
    pytest.mark.feature("AF-146"),
    pytest.mark.framework("langchain"),
    pytest.mark.framework("python"),
    pytest.mark.timeout(700),
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "-"),
]
_AT_LEAST = 50


def _all(*which: str) -> list[Any]:
    return [pytest.param(each, id=name) for name, each in ATTACKS.items() if each.kind in which]


def _level(machines: Reports, kind: str, level: str) -> dict[str, Any]:
    found = machines[kind]["levels"][level]
    assert "failed" not in found, found["failed"]
    return dict(found)


def _report(machines: Reports, kind: str, level: str, attack: Attack) -> dict[str, Any]:
    reports = _level(machines, kind, level)["reports"]
    assert attack.name in reports, reports.get("the-end", reports.get("the-batch", "the world ended before"))
    return dict(reports[attack.name])


def _worked(machines: Reports, kind: str, level: str, attack: Attack) -> bool:
    """Whether an attack did what it says: the canary is in its hands, the target has changed."""
    evidence = _report(machines, kind, level, attack)["evidence"]
    if attack.canary:
        return machines[kind]["secrets"][attack.canary] in (evidence or "")
    if attack.changes:
        return bool(evidence) and attack.changes in _level(machines, kind, level)["changed"]
    return bool(evidence)


def _possible(attack: Attack, kind: str) -> bool:
    """Whether the kernel lets the host's user do it."""
    return attack.who == "anyone" or attack.who == ("root" if kind == "root" else "user" if kind == "user" else "-")


@pytest.mark.parametrize("attack", _all("sandbox", "limit", "host"))
@pytest.mark.parametrize("kind", kinds())
def test_an_attack_comes_to_nothing_in_a_sandbox(machines: Reports, kind: str, attack: Attack) -> None:
    report = _report(machines, kind, "standard", attack)
    if attack.changes:
        assert attack.changes not in _level(machines, kind, "standard")["changed"], report
    elif attack.canary:
        assert not any(secret in (report["evidence"] or "") for secret in machines[kind]["secrets"].values()), report
    else:
        assert not report["evidence"], report


@pytest.mark.parametrize("attack", _all("sandbox", "limit"))
@pytest.mark.parametrize("kind", kinds())
def test_without_a_sandbox_it_does_what_it_says(machines: Reports, kind: str, attack: Attack) -> None:
    report = _report(machines, kind, "none", attack)
    if not _possible(attack, kind):
        assert not _worked(machines, kind, "none", attack), f"the kernel does not refuse it: {report}"
    elif attack.optional and not report["evidence"]:
        assert not report["bare"]["evidence"], f"a plain process can do it, so the worker should: {report}"
    else:
        assert _worked(machines, kind, "none", attack), report


@pytest.mark.parametrize("attack", [each for each in _all("host") if not each.values[0].fenced_only])
@pytest.mark.parametrize("kind", kinds())
def test_what_the_host_itself_stops_it_stops_without_a_sandbox_too(
    machines: Reports, kind: str, attack: Attack
) -> None:
    report = _report(machines, kind, "none", attack)
    assert not report["evidence"] or attack.changes, report
    assert attack.changes not in _level(machines, kind, "none")["changed"], report


@pytest.mark.parametrize("kind", kinds())
def test_the_attacked_worker_was_in_the_sandbox_that_its_record_names(machines: Reports, kind: str) -> None:
    for level in ("standard", "none"):
        assert _level(machines, kind, level)["reports"]["the-batch"]["sandbox"] == level


@pytest.mark.parametrize("kind", kinds())
def test_the_victim_went_on_undisturbed(machines: Reports, kind: str) -> None:
    assert "the-victim" not in _level(machines, kind, "standard")["reports"]


def test_there_are_enough_attacks_from_a_worker_of_a_real_framework() -> None:
    stopped_by_it = [each for each in ATTACKS.values() if each.kind == "sandbox" and not each.alone]
    assert len(stopped_by_it) >= _AT_LEAST
    assert len(ATTACKS) >= 3 * _AT_LEAST
