"""The environments layer: locks, built virtualenvs, and the project's record of which ones it uses."""

from agentforge.environments.environment import (
    BuildProgress,
    Check,
    CheckReport,
    Environment,
    EnvironmentRequest,
    Progress,
    Stage,
)
from agentforge.environments.environments import Environments
from agentforge.environments.home import data_home, storage_errors
from agentforge.environments.interpreters import Interpreter, Interpreters
from agentforge.environments.lock import Lock, LockedPackage
from agentforge.environments.project_lock import LOCK_FILE, LockEntry, ProjectLock

__all__ = [
    "LOCK_FILE",
    "BuildProgress",
    "Check",
    "CheckReport",
    "Environment",
    "EnvironmentRequest",
    "Environments",
    "Interpreter",
    "Interpreters",
    "Lock",
    "LockEntry",
    "LockedPackage",
    "Progress",
    "ProjectLock",
    "Stage",
    "data_home",
    "storage_errors",
]
