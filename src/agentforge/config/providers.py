"""Services with well-known addresses, and what of a caller's environment a run may need. Imports nothing heavy."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from agentforge.config.locate import PROJECT_FILE
from agentforge.config.reference import referenced_names

__all__ = [
    "EMBEDDED_ANSWERS_FIRST",
    "EMBEDDED_MODEL",
    "OVERRIDE_PREFIX",
    "PROVIDERS",
    "Provider",
    "embedded_notice",
    "model_variables",
    "names_to_send",
]

OVERRIDE_PREFIX = "AGENTFORGE_"


EMBEDDED_MODEL = "local"
"""Alias of the embedded model, and its name at its own endpoint."""
EMBEDDED_ANSWERS_FIRST = "local-answer"
"""Its name for agents whose alias says `first_step = "answer"`."""


def embedded_notice() -> str:
    """Return the line that output and docs show wherever the embedded model answers."""
    return (
        "model `local` is tiny (SmolLM2, 135M parameters): for trying the machinery, not for real answers; to connect "
        "a real one set OPENAI_BASE_URL and OPENAI_API_KEY, or [models.default] in agentforge.toml"
    )


@dataclass(frozen=True, slots=True)
class Provider:
    """A service with a well-known OpenAI-compatible address and the usual name of its key."""

    base_url: str
    key_variable: str | None


PROVIDERS: Mapping[str, Provider] = {
    "openai": Provider("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "openrouter": Provider("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "groq": Provider("https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    "mistral": Provider("https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
    "together": Provider("https://api.together.xyz/v1", "TOGETHER_API_KEY"),
    "deepseek": Provider("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
    "ollama": Provider("http://localhost:11434/v1", None),
}


def model_variables() -> set[str]:
    """Return the variables that are read for models that no configuration names."""
    keys = {provider.key_variable for provider in PROVIDERS.values() if provider.key_variable}
    return keys | {"OPENAI_BASE_URL", "AGENTFORGE_MODEL"}


def names_to_send(root: Path, environ: Mapping[str, str]) -> set[str]:
    """Return the variables of `environ` that a client sends along with a run, found without checking anything.

    The same as `environment_names` of the loaded project, for commands that want to start fast: what
    `agentforge.toml` refers to, what models read, and every `AGENTFORGE_*` variable. A file that can't be read
    counts as empty; the host says what is wrong with it.
    """
    ours = {name for name in environ if name.startswith(OVERRIDE_PREFIX)}
    written = [*_texts(_tables(root / PROJECT_FILE)), *(environ[name] for name in ours)]
    return (
        {name for text in written for name in referenced_names(text)} & set(environ)
        | ours
        | (model_variables() & set(environ))
    )


def _tables(file: Path) -> dict[str, object]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)
