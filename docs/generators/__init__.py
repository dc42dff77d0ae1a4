"""The generated parts of the reference: functions that return Markdown, and whole files' texts."""

from collections.abc import Callable

from agentforge import __version__
from generators.attacks import attacks, attacks_counted
from generators.bundles import environment_bundle, environment_bundle_schema
from generators.command_line import cli
from generators.compatibility import capabilities, compatibility
from generators.exports import run_export, run_export_schema
from generators.http_api import api, openapi
from generators.interfaces import adapter, python
from generators.listings import errors, features, frameworks
from generators.settings import agent, framework_schema, framework_toml, project

__all__ = ["BLOCKS", "FILES"]

BLOCKS: dict[str, Callable[[], str]] = {
    "adapter": adapter,
    "agent": agent,
    "api": api,
    "attacks": attacks,
    "attacks_counted": attacks_counted,
    "capabilities": capabilities,
    "cli": cli,
    "compatibility": compatibility,
    "environment_bundle": environment_bundle,
    "errors": errors,
    "features": features,
    "framework_toml": framework_toml,
    "frameworks": frameworks,
    "project": project,
    "python": python,
    "run_export": run_export,
    "version": lambda: f"This is the documentation of AgentForge {__version__}.",
}
FILES: dict[str, Callable[[], str]] = {
    "reference/environment-bundle.schema.json": environment_bundle_schema,
    "reference/framework.schema.json": framework_schema,
    "reference/openapi.json": openapi,
    "reference/run-export.schema.json": run_export_schema,
}
