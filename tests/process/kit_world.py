"""A framework of our own, as somebody else would write one: a folder with a manifest and an adapter for `kit`."""

import shutil
from pathlib import Path

__all__ = ["KIT_LOCKLESS", "write_kit", "write_library"]

_PYTHON = Path(__file__).parents[2] / "packages/adapters/agentforge_adapters/python/adapter.py"

KIT_LOCKLESS = """
name = "{name}"
title = "Kit"
summary = "A framework for tests."
distribution = "kit"
docs = "https://example.org/kit"

[settings]
type = "object"

[settings.properties.rounds]
description = "Rounds before it gives up."
type = "integer"
minimum = 1

[settings.properties.mood]
enum = ["calm", "wild"]

[capabilities.tools]
level = "full"

[capabilities.juggling]
level = "partial"
note = "Three balls at most."

[[releases]]
versions = ">=1,<2"
python = ">=3.8"
requirements = ["kit=={{version}}"]
adapter = "adapter:KitAdapter"
"""

_ADAPTER = """
import importlib.metadata
import json
import os

from agentforge_worker.adapter import Probe, Result
from .loop import Loop, PythonAdapter

VERSION = 1


class KitAdapter(PythonAdapter):
    def probe(self):
        return Probe(importlib.metadata.version("kit"))

    async def run(self, agent, request, ctx):
        if not (isinstance(agent, Loop) and request.text == "report"):
            return await super().run(agent, request, ctx)
        installed = {each.name: each.version for each in importlib.metadata.distributions()}
        variables = {key: value for key, value in os.environ.items() if key.startswith("KIT_")}
        said = {"settings": agent.spec.framework_settings, "installed": installed, "variables": variables}
        try:
            import mylib
            said["mylib"] = mylib.VALUE
        except ImportError:
            pass
        return Result(json.dumps({**said, "adapter": VERSION}))
"""


def write_kit(folder: Path, name: str = "kit", extra: str = "") -> Path:
    """Write the framework into a folder; nothing of it is tested, so that nothing ships a lock."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "framework.toml").write_text(KIT_LOCKLESS.format(name=name) + extra)
    (folder / "adapter.py").write_text(_ADAPTER)
    shutil.copyfile(_PYTHON, folder / "loop.py")
    (folder / "README.md").write_text("# Kit\n\nHow *kit* maps.\n\n| here | there |\n|---|---|\n| tools | gear |\n")
    return folder


def write_library(folder: Path, value: str, requires: tuple[str, ...] = ()) -> Path:
    """Write a package `mylib` that builds with a backend of its own: no index is asked for one."""
    folder.mkdir(parents=True, exist_ok=True)
    needs = "".join(f"Requires-Dist: {line}\\n" for line in requires)
    (folder / "mylib.py").write_text(f"VALUE = {value!r}\n")
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "mylib"\nversion = "0.1"\n'
    )
    (folder / "backend.py").write_text(
        "import zipfile\n"
        "def build_wheel(folder, config_settings=None, metadata_directory=None):\n"
        "    info = 'mylib-0.1.dist-info'\n"
        "    name = 'mylib-0.1-py3-none-any.whl'\n"
        "    with zipfile.ZipFile(folder + '/' + name, 'w') as wheel:\n"
        "        wheel.writestr(zipfile.ZipInfo('mylib.py'), open('mylib.py').read())\n"
        f"        wheel.writestr(info + '/METADATA', 'Metadata-Version: 2.1\\nName: mylib\\nVersion: 0.1\\n{needs}')\n"
        "        wheel.writestr(info + '/WHEEL', 'Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\n"
        "Tag: py3-none-any\\n')\n"
        "        wheel.writestr(info + '/RECORD', '')\n"
        "    return name\n"
    )
    return folder
