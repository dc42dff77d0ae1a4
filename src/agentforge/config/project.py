"""A project as the host works with it: its folder, its configuration, its state."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agentforge.config.checking import check
from agentforge.config.locate import PROJECT_FILE, STATE_DIR
from agentforge.config.project_file import ProjectConfig, references
from agentforge.config.providers import model_variables
from agentforge.config.reading import read_text
from agentforge.config.source import Source
from agentforge.config.toml_source import parse_toml
from agentforge.config.variables import overridden, variable_names

__all__ = ["Project", "environment_names", "load_project"]


@dataclass(frozen=True, slots=True)
class Project:
    """A folder with (or without) an `agentforge.toml`.

    `config_digest` (sha256) changes when anything in the effective configuration does; references count as written,
    so it holds no secret.
    """

    root: Path
    config: ProjectConfig
    state_dir: Path
    config_digest: str
    source: Source = field(default_factory=lambda: Source(PROJECT_FILE, {}), repr=False, compare=False)
    """Where everything in the configuration stands, for messages of later layers."""


def load_project(root: Path, environ: Mapping[str, str] | None = None) -> Project:
    """Return the project in a folder: variable > `agentforge.toml` > default. Raises ConfigError.

    `environ` is where `AGENTFORGE_*` variables are looked up (default: this process's environment).
    """
    root = root.absolute()
    file = root / PROJECT_FILE
    source = parse_toml(read_text(file), str(file)) if file.exists() else Source(str(file), {})
    source = overridden(source, os.environ if environ is None else environ)
    config = check(ProjectConfig, source)
    return Project(root, config, root / STATE_DIR, _digest(config), source)


def environment_names(project: Project) -> frozenset[str]:
    """Return the variables that a client sends along with a run, if they are set.

    References of the configuration, what the default model and `provider:model` names read, and the overrides of
    settings; nothing else of the caller's environment leaves its process.
    """
    return frozenset(references(project.config) | model_variables() | variable_names(project.config))


def _digest(config: ProjectConfig) -> str:
    data = json.dumps(config.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(data.encode()).hexdigest()
