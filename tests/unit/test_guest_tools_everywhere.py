"""The tool worker's code runs on every Python that a tool environment may have."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).parents[2] / "packages" / "worker"

TOOLS = '''
import dataclasses
import datetime
import enum
from typing import Any, Dict, List, Optional, Tuple, Union

try:
    from typing import Literal, TypedDict
except ImportError:
    raise SystemExit("too old")

import sibling


class Color(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: float
    children: "List[Point]" = dataclasses.field(default_factory=list)


class Row(TypedDict, total=False):
    id: int


def everything(a: str, b: int = 1, c: Optional[float] = None, d: List[int] = [], e: Dict[str, Any] = {},
               f: Tuple[int, str] = (1, "x"), g: Union[int, str] = 3, h: Literal["p", "q"] = "p",
               i: Color = Color.RED, j: Optional[Point] = None, k: Row = {}, m: bool = False,
               n: Optional[datetime.datetime] = None, o: str = None, ctx=None) -> Dict[str, Any]:
    """Take everything.

    Args:
        a: The first.
    """
    import late
    return {"a": a, "d": d, "i": i, "j": j, "n": n, "sibling": sibling.value, "late": late.value, "run": ctx.run_id}


async def waits(a: int) -> int:
    """Wait."""
    return a + 1
'''

MODERN = """
from typing import Annotated


def modern(a: int | None, b: list[str], c: Annotated[str, "The third."] = "x") -> dict[str, int]:
    return {"n": len(b)}
"""

PROGRAM = """
import asyncio, json, sys
from agentforge_worker.tools import ToolError, call, describe, load_function
root = sys.argv[1]
everything = load_function(root, "tools.py", "everything")
waits = load_function(root, "tools.py", "waits")
arguments = {"a": "x", "d": ["1"], "i": "red", "j": {"x": 1, "children": [{"x": 2}]}, "n": "2026-01-31T09:30:00Z"}
try:
    asyncio.run(call(everything, {"b": "no", "zz": 1}, {}))
except ToolError as error:
    refused = str(error)
answer = {
    "described": describe(everything),
    "called": asyncio.run(call(everything, arguments, {"run_id": "r1"})),
    "awaited": asyncio.run(call(waits, {"a": 1}, {})),
    "refused": refused,
    "path": root in sys.path,
}
try:
    answer["modern"] = describe(load_function(root, "modern.py", "modern"))
except (ToolError, ImportError) as error:
    answer["modern"] = str(error)
print(json.dumps(answer))
"""


def _pythons() -> list[str]:
    """Interpreters of Python >= 3.8 on this machine, one a version: this one, pyenv's, uv's, the system's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR", "~/.local/share/uv/python")).expanduser()
    found = {sys.version_info[:2]: Path(sys.executable)}
    candidates = [*sorted(pyenv.glob("3.*/bin/python3")), *sorted(uv.glob("cpython-3.*/bin/python3"))]
    for candidate in [*candidates, *sorted(Path("/usr/bin").glob("python3.*"))]:
        written = candidate.parent.parent.name if candidate.name == "python3" else candidate.name
        version = re.search(r"(3)\.(\d+)", written)
        if version and re.fullmatch(r"python3(\.\d+)?", candidate.name) and int(version[2]) >= 8:
            found.setdefault((3, int(version[2])), candidate)
    return [str(found[version]) for version in sorted(found)]


@pytest.mark.parametrize("python", _pythons())
def test_tools_are_loaded_described_and_called(tmp_path, python):
    for name, text in {"tools": TOOLS, "sibling": "value = 7", "late": "value = 8", "modern": MODERN}.items():
        (tmp_path / f"{name}.py").write_text(text)
    ran = subprocess.run(
        [python, "-s", "-W", "error", "-c", PROGRAM, str(tmp_path)],
        env={"PYTHONPATH": str(WORKER), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    answer = json.loads(ran.stdout)
    assert answer["called"] == {
        "a": "x",
        "d": [1],
        "i": "red",
        "j": {"x": 1.0, "children": [{"x": 2.0, "children": []}]},
        "n": "2026-01-31T09:30:00+00:00",
        "sibling": 7,
        "late": 8,
        "run": "r1",
    }
    assert answer["awaited"] == 2
    assert answer["path"] is False
    assert answer["refused"] == (
        "`everything` has no parameter `zz` (it has: "
        + ", ".join(f"`{name}`" for name in "abcdefghijkmno")
        + "); `a` is missing: expected a string; `b`: expected an integer, got 'no'"
    )
    point = {
        "type": "object",
        "properties": {
            "x": {"type": "number"},
            "children": {"type": "array", "items": {"$ref": "#/$defs/Point"}, "default": []},
        },
        "required": ["x"],
    }
    text_or_null = [{"type": "string"}, {"type": "null"}]
    assert answer["described"] == {
        "name": "everything",
        "description": "Take everything.",
        "parameters": {
            "type": "object",
            "properties": {
                "a": {"type": "string", "description": "The first."},
                "b": {"type": "integer", "default": 1},
                "c": {"anyOf": [{"type": "number"}, {"type": "null"}], "default": None},
                "d": {"type": "array", "items": {"type": "integer"}, "default": []},
                "e": {"type": "object", "additionalProperties": True, "default": {}},
                "f": {
                    "type": "array",
                    "prefixItems": [{"type": "integer"}, {"type": "string"}],
                    "minItems": 2,
                    "maxItems": 2,
                    "default": [1, "x"],
                },
                "g": {"anyOf": [{"type": "integer"}, {"type": "string"}], "default": 3},
                "h": {"enum": ["p", "q"], "type": "string", "default": "p"},
                "i": {"const": "red", "type": "string", "default": "red"},
                "j": {"anyOf": [{"$ref": "#/$defs/Point"}, {"type": "null"}], "default": None},
                "k": {"type": "object", "properties": {"id": {"type": "integer"}}, "default": {}},
                "m": {"type": "boolean", "default": False},
                "n": {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}], "default": None},
                "o": {"anyOf": text_or_null, "default": None},
            },
            "required": ["a"],
            "$defs": {"Point": point},
        },
    }
    if isinstance(answer["modern"], dict):
        assert answer["modern"]["parameters"]["properties"]["c"]["description"] == "The third."
    else:
        assert "importing `modern.py` failed" in answer["modern"]
