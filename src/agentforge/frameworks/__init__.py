"""The catalogue layer: frameworks, their releases and adapters, as data the host reads and never imports."""

from agentforge.frameworks.ability import require_able
from agentforge.frameworks.catalogue import Broken, Catalogue, InterpreterTest
from agentforge.frameworks.deprecation import Deprecated, deprecation_of, require_usable
from agentforge.frameworks.discovery import LiveCatalogue
from agentforge.frameworks.folders import MANIFEST_FILE, manifest_folders
from agentforge.frameworks.loading import load_manifest
from agentforge.frameworks.manifest import (
    Capability,
    Level,
    Manifest,
    ReleaseRange,
    TestedRelease,
    Traits,
)
from agentforge.frameworks.release import Reference, Release, is_release

__all__ = [
    "MANIFEST_FILE",
    "Broken",
    "Capability",
    "Catalogue",
    "Deprecated",
    "InterpreterTest",
    "Level",
    "LiveCatalogue",
    "Manifest",
    "Reference",
    "Release",
    "ReleaseRange",
    "TestedRelease",
    "Traits",
    "deprecation_of",
    "is_release",
    "load_manifest",
    "manifest_folders",
    "require_able",
    "require_usable",
]
