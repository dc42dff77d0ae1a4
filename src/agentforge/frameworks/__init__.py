"""The catalogue layer: frameworks, their releases and adapters, as data the host reads and never imports."""

from agentforge.frameworks.catalogue import Catalogue, InterpreterTest
from agentforge.frameworks.loading import load_manifest
from agentforge.frameworks.manifest import (
    MANIFEST_FILE,
    Capability,
    Level,
    Manifest,
    ReleaseRange,
    TestedRelease,
)
from agentforge.frameworks.release import Reference, Release, is_release

__all__ = [
    "MANIFEST_FILE",
    "Capability",
    "Catalogue",
    "InterpreterTest",
    "Level",
    "Manifest",
    "Reference",
    "Release",
    "ReleaseRange",
    "TestedRelease",
    "is_release",
    "load_manifest",
]
