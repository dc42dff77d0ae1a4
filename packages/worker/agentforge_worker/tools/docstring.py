"""Read docstrings: the text, and what they say about each parameter (Google, NumPy and reST styles)."""

import inspect
import re
from typing import Dict, List, NamedTuple, Optional, Tuple

__all__ = ["Docstring", "parse_docstring"]

_PARAMETERS = {
    "args", "arguments", "parameters", "params", "keyword args", "keyword arguments", "other parameters",
    "attributes",
}  # fmt: skip
_DROPPED = {"returns", "return", "yields", "yield", "raises", "raise", "except", "exceptions", "receives"}
_GOOGLE_HEADER = re.compile(r"([A-Za-z ]+):\s*$")
_NUMPY_RULE = re.compile(r"-{3,}\s*$")
_GOOGLE_ENTRY = re.compile(r"\*{0,2}(\w+)\s*(?:\((?:[^()]|\([^()]*\))*\))?\s*:(?!:)\s*(.*)$")
_NUMPY_ENTRY = re.compile(r"(\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*)\s*(?::.*)?$")
_REST_FIELD = re.compile(r":(\w+)((?:\s+[^:]*)?):(?!`)\s*(.*)$")
_REST_PARAMETER = {"param", "parameter", "arg", "argument", "key", "keyword"}
_REST_DROPPED = {"return", "returns", "rtype", "raise", "raises", "except", "exception", "yield", "yields", "type"}


class Docstring(NamedTuple):
    """A docstring without its sections, and the descriptions of parameters by name."""

    text: str
    parameters: Dict[str, str]


def parse_docstring(doc: Optional[str]) -> Docstring:
    """Return a docstring's text and parameters; sections on results and exceptions are left out."""
    lines = inspect.cleandoc(doc or "").splitlines()
    text: List[str] = []
    parameters: Dict[str, str] = {}
    at = 0
    while at < len(lines):
        found, end = _section(lines, at)
        if end == at:
            text.append(lines[at])
            end = at + 1
        for name, description in found.items():
            if description:
                parameters.setdefault(name, description)
        at = end
    return Docstring(re.sub(r"\n{3,}", "\n\n", "\n".join(text)).strip(), parameters)


def _section(lines: List[str], at: int) -> Tuple[Dict[str, str], int]:
    """Return the parameters of the section that begins at a line and where it ends; `at` if none begins there."""
    line = lines[at]
    google = _GOOGLE_HEADER.match(line)
    if google and _known(google.group(1)) and at + 1 < len(lines) and _indent(lines[at + 1]):
        end = _end_of_indented(lines, at + 1)
        return _google(lines[at + 1 : end]) if _describes(google.group(1)) else {}, end
    if _known(line) and at + 1 < len(lines) and _NUMPY_RULE.match(lines[at + 1]):
        end = _end_of_numpy(lines, at + 2)
        return _numpy(lines[at + 2 : end]) if _describes(line) else {}, end
    rest = _REST_FIELD.match(line)
    if rest and rest.group(1) in _REST_PARAMETER | _REST_DROPPED:
        end = _end_of_indented(lines, at + 1)
        names = rest.group(2).split()
        if rest.group(1) in _REST_DROPPED or not names:
            return {}, end
        return {names[-1].lstrip("*"): _joined([rest.group(3), *lines[at + 1 : end]])}, end
    return {}, at


def _known(header: str) -> bool:
    return header.strip().lower() in _PARAMETERS | _DROPPED


def _describes(header: str) -> bool:
    return header.strip().lower() in _PARAMETERS


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip()) if line.strip() else 0


def _end_of_indented(lines: List[str], at: int) -> int:
    while at < len(lines) and (_indent(lines[at]) or not lines[at].strip()):
        at += 1
    return at


def _end_of_numpy(lines: List[str], at: int) -> int:
    while at < len(lines):
        if at + 1 < len(lines) and lines[at].strip() and _NUMPY_RULE.match(lines[at + 1]):
            break
        at += 1
    return at


def _google(body: List[str]) -> Dict[str, str]:
    margin = min((_indent(line) for line in body if line.strip()), default=0)
    found: Dict[str, List[str]] = {}
    current: List[str] = []
    for line in body:
        entry = _GOOGLE_ENTRY.match(line.strip()) if _indent(line) == margin else None
        if entry:
            current = found.setdefault(entry.group(1), [])
            current.append(entry.group(2))
        else:
            current.append(line)
    return {name: _joined(lines) for name, lines in found.items()}


def _numpy(body: List[str]) -> Dict[str, str]:
    found: Dict[str, List[str]] = {}
    current: List[str] = []
    for line in body:
        entry = _NUMPY_ENTRY.match(line) if line.strip() and not _indent(line) else None
        if entry:
            current = []
            for name in entry.group(1).split(","):
                found[name.strip().lstrip("*")] = current
        else:
            current.append(line)
    return {name: _joined(lines) for name, lines in found.items()}


def _joined(lines: List[str]) -> str:
    return " ".join(line.strip() for line in lines if line.strip())
