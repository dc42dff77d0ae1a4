"""What a run's failure is called: the one place where workers', models' and our own errors become the run's."""

from agentforge.engine.answers import read_failure
from agentforge.engine.execution import Execution
from agentforge.errors import AgentForgeError, ErrorInfo, InternalError
from agentforge.errors.runs import WorkerBroke
from agentforge.errors.sandbox import REPORTED_LIMITS
from agentforge_worker.wire import ErrorCode, RpcError

__all__ = ["error_of", "failure_of_rpc"]


def error_of(failure: BaseException, execution: Execution) -> ErrorInfo:
    """Return a failure as the run's error.

    A framework's exception after a failed model call is the model's failure: its own words stay in the details. A
    limit that was hit is what it is.
    """
    if isinstance(failure, RpcError):
        info = failure_of_rpc(failure)
        if info.code in REPORTED_LIMITS:
            return info
        if execution.attempt.model_failure is not None and info.origin in ("framework", "adapter", "user", "model"):
            model = execution.attempt.model_failure.info()
            details = {**model.details, "framework": info.message, **info.details}
            return ErrorInfo(model.code, model.message, model.hint, model.origin, details)
        return info
    if isinstance(failure, AgentForgeError):
        return failure.info()
    return InternalError(f"`{type(failure).__name__}`: {failure}").info()


def failure_of_rpc(error: RpcError) -> ErrorInfo:
    """Return the error object that a worker sent, or one saying that it sent none."""
    info = read_failure(error.data) if error.code == ErrorCode.FAILED else None
    if info is not None:
        return info
    if error.code == ErrorCode.CANCELLED:
        return WorkerBroke("the framework cancelled the run by itself").info()
    return WorkerBroke(f"the worker answered with error {error.code}: {error.message}").info()
