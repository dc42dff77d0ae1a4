"""The environments layer: locks, built virtualenvs, and the project's record of which ones it uses."""

from agentforge.environments.additions import BOUND, CONTENT, content_of
from agentforge.environments.collecting import Collected, Collection, Kept
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
from agentforge.environments.inspecting import Damage, Inspection, inspect
from agentforge.environments.interpreters import Interpreter, Interpreters
from agentforge.environments.lock import Lock, LockedPackage
from agentforge.environments.moving import Exported, Imported
from agentforge.environments.needs import Need
from agentforge.environments.project_lock import LOCK_FILE, LockEntry, ProjectLock
from agentforge.environments.verifying import installed
from agentforge.environments.wheels import LocalWheel, content_digest

__all__ = [
    "BOUND",
    "CONTENT",
    "LOCK_FILE",
    "BuildProgress",
    "Check",
    "CheckReport",
    "Collected",
    "Collection",
    "Damage",
    "Environment",
    "EnvironmentRequest",
    "Environments",
    "Exported",
    "Imported",
    "Inspection",
    "Interpreter",
    "Interpreters",
    "Kept",
    "LocalWheel",
    "Lock",
    "LockEntry",
    "LockedPackage",
    "Need",
    "Progress",
    "ProjectLock",
    "Stage",
    "content_digest",
    "content_of",
    "data_home",
    "inspect",
    "installed",
    "storage_errors",
]
