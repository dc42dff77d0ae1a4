"""What whoever keeps a machine demands of every project on it: `/etc/agentforge/policy.toml`.

A project, an agent or a variable may ask for more than the policy, never for less. `AGENTFORGE_POLICY` names one more
file, for containers that can't have the first: the stricter of both holds.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from agentforge.config.checking import Section, check
from agentforge.config.project_file import SandboxLevel
from agentforge.config.reading import read_text
from agentforge.config.source import Source
from agentforge.config.toml_source import parse_toml

__all__ = ["POLICY_FILE", "Policy", "SandboxPolicy", "load_policies"]

POLICY_FILE = Path("/etc/agentforge/policy.toml")
_VARIABLE = "AGENTFORGE_POLICY"


class SandboxPolicy(Section):
    """What is demanded of sandboxes."""

    minimum: SandboxLevel = "none"
    """The weakest level that any agent may run at; a weaker one is refused with AF441."""


class Policy(Section):
    """The whole of `policy.toml`; every key is optional."""

    sandbox: SandboxPolicy = SandboxPolicy()
    """What is demanded of sandboxes."""


def load_policies(environ: Mapping[str, str] = os.environ, file: Path = POLICY_FILE) -> dict[str, Policy]:
    """Return the policies that hold on this machine, by their file. Raises ConfigError.

    A file that is named but not there is an error: a policy must not go missing unnoticed.
    """
    named = environ.get(_VARIABLE)
    files = [*([file] if file.exists() else []), *([Path(named)] if named else [])]
    return {str(each): _load(each) for each in files}


def _load(file: Path) -> Policy:
    source: Source = parse_toml(read_text(file), str(file))
    return check(Policy, source)
