"""Which limits a worker gets, and whom a hit one is blamed on."""

from pathlib import Path
from typing import Any

import pytest

from agentforge.config import AgentFile, ProjectConfig
from agentforge.engine.limiting import LimitHitInCompany, blaming, limits_of
from agentforge.errors.sandbox import CommonsExceeded, LimitExceeded, MemoryExceeded
from agentforge.sandbox import Limits
from agentforge.workers import WorkerSpec
from agentforge_worker.wire import ErrorCode, RpcError


def agent(**limits: Any) -> AgentFile:
    return AgentFile.model_validate({"name": "one", "instructions": "x", "limits": limits})


def project(**limits: Any) -> ProjectConfig:
    return ProjectConfig.model_validate({"limits": limits})


def test_without_a_word_the_defaults_hold() -> None:
    assert limits_of(project(), "langchain", agent()) == Limits()


@pytest.mark.feature("AF-030")
def test_the_agent_goes_before_its_framework_before_the_project() -> None:
    config = project(
        memory_mib=1000, processes=100, open_files=1000,
        frameworks={"langchain": {"memory_mib": 2000, "processes": 200}, "crewai": {"memory_mib": 9000}},
    )  # fmt: skip
    found = limits_of(config, "langchain", agent(memory_mib=3000))
    assert (found.memory_mib, found.processes, found.open_files) == (3000, 200, 1000)
    assert found.file_mib == Limits().file_mib
    assert limits_of(config, "crewai", agent()).memory_mib == 9000


class StandIn:
    """A worker, and who can retire it."""

    def __init__(self, alone: str = "") -> None:
        self.spec = WorkerSpec("agent", "env", Path("python"), "version", alone=alone)
        self.shared = False
        self.retired = False
        self._run = ""

    def serve(self, run_id: str) -> None:
        self.shared = self.shared or self._run not in ("", run_id)
        self._run = run_id

    def retire(self, worker: "StandIn") -> None:
        worker.retired = True


def hit_by(worker: StandIn, run_id: str, failure: Exception) -> None:
    with blaming(worker, worker, run_id):  # type: ignore[arg-type]
        raise failure


def reported(code: str) -> RpcError:
    return RpcError(ErrorCode.FAILED, "no more", {"code": code, "message": "no more", "origin": "user"})


@pytest.mark.parametrize("failure", [MemoryExceeded("too much"), reported("AF444")])
def test_the_only_run_that_a_worker_ever_served_is_blamed(failure: Exception) -> None:
    worker = StandIn()
    with pytest.raises(type(failure)):
        hit_by(worker, "one", failure)
    assert worker.retired


@pytest.mark.parametrize("failure", [MemoryExceeded("too much"), reported("AF444")])
def test_a_run_in_a_worker_that_served_others_is_not_blamed(failure: Exception) -> None:
    worker = StandIn()
    with blaming(worker, worker, "before"):  # type: ignore[arg-type]
        pass
    with pytest.raises(LimitHitInCompany) as raised:
        hit_by(worker, "one", failure)
    assert not isinstance(raised.value, LimitExceeded)
    assert raised.value.info().code in ("AF442", "AF444")
    assert worker.retired


@pytest.mark.parametrize(("alone", "raised"), [("", LimitHitInCompany), ("one", CommonsExceeded)])
def test_what_other_workers_may_write_too_is_blamed_on_a_run_that_sees_its_own_alone(
    alone: str, raised: type[Exception]
) -> None:
    worker = StandIn(alone)
    with pytest.raises(raised):
        hit_by(worker, "one", CommonsExceeded("too much"))
    assert worker.retired


def test_a_run_that_is_tried_again_in_its_worker_is_alone_there(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = StandIn()
    with blaming(worker, worker, "one"):  # type: ignore[arg-type]
        pass
    with pytest.raises(MemoryExceeded):
        hit_by(worker, "one", MemoryExceeded("too much"))


def test_another_failure_is_what_it_is() -> None:
    worker = StandIn()
    worker.serve("before")
    with pytest.raises(RpcError):
        hit_by(worker, "one", reported("AF422"))
    assert not worker.retired
