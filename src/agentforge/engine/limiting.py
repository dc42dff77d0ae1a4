"""What the sandbox of a run may use, and whose doing it is when it uses more."""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from agentforge.config import AgentFile, ProjectConfig, ResourceLimits
from agentforge.engine.execution import Execution
from agentforge.engine.failures import failure_of_rpc
from agentforge.engine.staff import Staff
from agentforge.errors import ErrorInfo
from agentforge.errors.sandbox import REPORTED_LIMITS, CommonsExceeded, DiskExceeded, LimitExceeded
from agentforge.errors.workers import WorkerDied
from agentforge.sandbox import Limits, Watch
from agentforge.workers import Worker
from agentforge_worker.wire import RpcError

__all__ = ["LimitHitInCompany", "blaming", "guarded", "limits_of"]


def limits_of(config: ProjectConfig, framework: str, file: AgentFile) -> Limits:
    """Return the limits of an agent's worker: what the agent says, else its framework's, the project's, the default."""
    said = (file.limits, config.limits.frameworks.get(framework, ResourceLimits()), config.limits)
    found = {field.name: [getattr(each, field.name) for each in said] for field in fields(Limits)}
    given = {name: next((each for each in values if each is not None), None) for name, values in found.items()}
    return Limits(**{name: value for name, value in given.items() if value is not None})


class LimitHitInCompany(WorkerDied):
    """A worker that has served other runs too hit a limit: whose doing it was can't be known."""

    def __init__(self, hit: ErrorInfo) -> None:
        super().__init__(hit.message, hint=hit.hint)
        self._hit = hit

    def info(self) -> ErrorInfo:
        """Return the limit's own error."""
        return self._hit


@contextlib.contextmanager
def blaming(staff: Staff, worker: Worker, run_id: str) -> Iterator[None]:
    """Blame a run for the limit that its worker hits if it is the only one that the worker has ever served.

    What several workers may write is the doing of none of them for certain, unless it is there for one run alone.
    Raises LimitHitInCompany in place of the limit's error where it is not: it is to be tried again alone, which shows.
    The worker serves no further run: threads, open files and a full scratch folder are left behind in it.
    """
    worker.serve(run_id)
    try:
        yield
    except (LimitExceeded, RpcError) as failure:
        hit = _limit_hit(failure)
        if hit is not None:
            staff.retire(worker)
        in_company = worker.shared or (isinstance(failure, CommonsExceeded) and not worker.spec.alone)
        if hit is None or not in_company:
            raise
        raise LimitHitInCompany(hit) from failure


def _limit_hit(failure: LimitExceeded | RpcError) -> ErrorInfo | None:
    if isinstance(failure, LimitExceeded):
        return failure.info()
    info = failure_of_rpc(failure)
    return info if info.code in REPORTED_LIMITS else None


@contextlib.contextmanager
def guarded(watch: Watch, workspace: Path, execution: Execution, worker: Worker) -> Iterator[None]:
    """Fail a run whose workspace grows too large; end its worker too if the framework does not leave it then."""
    limit = worker.spec.fence.limits.disk_mib
    error = DiskExceeded(f"the workspace of the run grew beyond `disk_mib: {limit}`")
    guard = watch.guard(workspace, limit, lambda: execution.fail(error))
    try:
        yield
    except asyncio.CancelledError:  # it did not leave in time, and may go on writing
        if guard.over:
            worker.exceed(error)
        raise
    finally:
        guard.close()
