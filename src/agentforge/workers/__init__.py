"""Worker processes: start them in their environments, watch them, share them among runs, end them.

The engine leases a worker for each run; `gateway` and `tools` never see this layer, what they need of it comes in
through the engine.
"""

from agentforge.workers.code import CodeEnd, CodeSpec, run_code
from agentforge.workers.pool import Pool, PoolLimits
from agentforge.workers.process import Handlers, Worker, WorkerTimeouts
from agentforge.workers.remains import WorkersFolder, workers_gone
from agentforge.workers.schemas import Failure, Question, RunAnswer, check_depth
from agentforge.workers.spec import AdapterCode, WorkerSpec
from agentforge.workers.trial import Trial, TrialRun
from agentforge.workers.workspaces import Workspaces
from agentforge.workers.zip import worker_zip

__all__ = [
    "AdapterCode",
    "CodeEnd",
    "CodeSpec",
    "Failure",
    "Handlers",
    "Pool",
    "PoolLimits",
    "Question",
    "RunAnswer",
    "Trial",
    "TrialRun",
    "Worker",
    "WorkerSpec",
    "WorkerTimeouts",
    "WorkersFolder",
    "Workspaces",
    "check_depth",
    "run_code",
    "worker_zip",
    "workers_gone",
]
