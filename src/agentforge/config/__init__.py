"""What users write: `agentforge.toml`, agent files, `AGENTFORGE_*` variables, references to secrets.

Names are loaded when they are used: a command that only looks for its project's host pays for `find_project`
alone, not for pydantic.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentforge.config.agent import AgentDefinition, load_agent, load_agent_value
    from agentforge.config.agent_file import AgentFile, Limits, Native, Permissions, Tool
    from agentforge.config.locate import PROJECT_FILE, PROJECT_LOCK, STATE_DIR, find_project
    from agentforge.config.models import ModelTarget, resolve_model
    from agentforge.config.policy import Policy, load_policies
    from agentforge.config.project import Project, environment_names, load_project
    from agentforge.config.project_file import ModelConfig, ProjectConfig, ResourceLimits, references
    from agentforge.config.providers import embedded_notice, names_to_send
    from agentforge.config.reference import expand
    from agentforge.config.settings import ModelSettings
    from agentforge.config.snapshots import AgentSnapshot, snapshot

_HOMES = {
    "agent": ("AgentDefinition", "load_agent", "load_agent_value"),
    "agent_file": ("AgentFile", "Limits", "Native", "Permissions", "Tool"),
    "locate": ("PROJECT_FILE", "PROJECT_LOCK", "STATE_DIR", "find_project"),
    "models": ("ModelTarget", "resolve_model"),
    "policy": ("Policy", "load_policies"),
    "project": ("Project", "environment_names", "load_project"),
    "project_file": ("ModelConfig", "ProjectConfig", "ResourceLimits", "references"),
    "providers": ("embedded_notice", "names_to_send"),
    "reference": ("expand",),
    "settings": ("ModelSettings",),
    "snapshots": ("AgentSnapshot", "snapshot"),
}

__all__ = [
    "PROJECT_FILE",
    "PROJECT_LOCK",
    "STATE_DIR",
    "AgentDefinition",
    "AgentFile",
    "AgentSnapshot",
    "Limits",
    "ModelConfig",
    "ModelSettings",
    "ModelTarget",
    "Native",
    "Permissions",
    "Policy",
    "Project",
    "ProjectConfig",
    "ResourceLimits",
    "Tool",
    "embedded_notice",
    "environment_names",
    "expand",
    "find_project",
    "load_agent",
    "load_agent_value",
    "load_policies",
    "load_project",
    "names_to_send",
    "references",
    "resolve_model",
    "snapshot",
]

if not TYPE_CHECKING:  # a type checker should go on refusing names that are not there

    def __getattr__(name: str) -> object:
        for module, names in _HOMES.items():
            if name in names:
                return getattr(importlib.import_module(f"{__name__}.{module}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
