"""Lists of what there is: error codes, features and their tests, frameworks."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import agentforge.errors
from agentforge.errors import AgentForgeError
from agentforge.frameworks import Catalogue
from agentforge_worker.runtime import failures
from generators.markdown import table

__all__ = ["error_codes", "errors", "feature_tests", "features", "frameworks"]

DOCS = Path(__file__).parent.parent
ROOT = DOCS.parent


def error_codes() -> dict[str, str]:
    """Return every code that a user can meet, with the class (or the part) that it comes from."""
    for module in pkgutil.iter_modules(agentforge.errors.__path__):
        importlib.import_module(f"agentforge.errors.{module.name}")
    found = {kind.code: kind.__name__ for kind in _subclasses(AgentForgeError) if "code" in vars(kind)}
    for code in re.findall(r'"(AF\d{3})"', inspect.getsource(failures)):
        found.setdefault(code, "the worker")
    found.setdefault("AF709", "RunResult.check")
    return dict(sorted(found.items()))


def _subclasses(kind: type[AgentForgeError]) -> Iterator[type[AgentForgeError]]:
    for each in kind.__subclasses__():
        yield each
        yield from _subclasses(each)


_LAYERS = {
    "1": "Agent files and `agentforge.toml`",
    "2": "Frameworks",
    "3": "Environments",
    "4": "Workers",
    "5": "Models",
    "6": "Tools",
    "7": "Runs",
    "8": "The store",
    "9": "Host, API and command line",
}


def errors() -> str:
    """Every code with the title of its page."""
    parts = []
    for layer, title in _LAYERS.items():
        codes = [code for code in error_codes() if code[2] == layer]
        rows = [(f"[{code}]({code}.md)", _title(code), f"`{error_codes()[code]}`") for code in codes]
        parts += [f"## {title} (AF{layer}xx)", table(("code", "what happened", "class"), rows)]
    return "\n\n".join(parts)


def _title(code: str) -> str:
    page = DOCS / "errors" / f"{code}.md"
    first = page.read_text("utf-8").splitlines()[0] if page.exists() else ""
    return first.removeprefix(f"# {code}: ")


def feature_tests() -> dict[str, list[str]]:
    """Return the test files that hold each feature, by its id."""
    found: dict[str, set[str]] = {}
    places = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "packages" / "conformance").rglob("*.py")]
    for file in places:
        for feature in re.findall(r'mark\.feature\("(AF-\d{3})"\)', file.read_text("utf-8")):
            found.setdefault(feature, set()).add(str(file.relative_to(ROOT)))
    return {feature: sorted(files) for feature, files in sorted(found.items())}


def features() -> str:
    """Which tests hold which feature."""
    rows = [(feature, ", ".join(f"`{file}`" for file in files)) for feature, files in feature_tests().items()]
    return table(("feature", "tests"), rows)


def frameworks() -> str:
    """Every shipped framework with its capabilities."""
    catalogue = Catalogue.discover()
    parts = []
    for name in catalogue.names():
        manifest = catalogue.get(name)
        releases = ", ".join(f"`{release.version}`" for release in catalogue.releases(name))
        covers = "; ".join(f"`{each.versions}` on Python `{each.python}`" for each in manifest.releases)
        rows = [(key, value.level, value.note) for key, value in manifest.capabilities.items()]
        text = f"## {name}\n\n{manifest.summary}\n\nTested releases: {releases}. The adapter covers {covers}."
        parts.append(f"{text}\n\n{table(('capability', 'level', 'note'), rows)}")
    return "\n\n".join(parts)
