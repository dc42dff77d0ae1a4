"""A framework that there is in tests only, as a folder with a manifest and the lock of its one tested release."""

from pathlib import Path

from agentforge.frameworks import Catalogue

MANIFEST = """
name = "kit"
title = "Kit"
summary = "A framework for tests."
distribution = "kit"

[[releases]]
versions = ">=1,<2"
python = ">=3.8"
requirements = ["kit=={version}"]
adapter = "adapter:KitAdapter"
tested = [{ version = "1.0", as_of = 2024-06-01T00:00:00Z, lock = "locks/1.0.txt" }]
"""


def text_of(version: str, digit: str = "1") -> str:
    return f"kit=={version} \\\n    --hash=sha256:{digit * 64}\n"


def kit_catalogue(folder: Path) -> Catalogue:
    """Write the framework into a folder and return the catalogue that has it."""
    (folder / "locks").mkdir(parents=True)
    (folder / "framework.toml").write_text(MANIFEST)
    (folder / "locks/1.0.txt").write_text(text_of("1.0"))
    return Catalogue.discover([folder], check_files=False)
