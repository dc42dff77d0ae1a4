"""Which endpoint and model a name in an agent file means."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from agentforge.config.project_file import ModelConfig, ProjectConfig
from agentforge.config.providers import EMBEDDED_ANSWERS_FIRST, EMBEDDED_MODEL, PROVIDERS
from agentforge.config.reference import expand
from agentforge.config.source import did_you_mean, shown
from agentforge.errors.config import ConfigError, InvalidValueError, UnknownModelError

if TYPE_CHECKING:
    from agentforge.config.project import Project

__all__ = ["DEFAULT_MODEL", "ModelTarget", "resolve_model"]

DEFAULT_MODEL = "default"
OPENAI_MODEL = "gpt-4o-mini"
"""What `OPENAI_API_KEY` alone asks for: cheap, calls tools, and every account has it."""


@dataclass(frozen=True, slots=True)
class ModelTarget:
    """Where calls to a model go. `api_key_ref` is still a reference: the key itself exists only in the gateway."""

    alias: str
    kind: Literal["openai", "embedded"]
    base_url: str | None
    api_key_ref: str | None
    model: str
    settings: Mapping[str, Any] = field(default_factory=dict)


def resolve_model(project: "Project", name: str, environ: Mapping[str, str]) -> ModelTarget:
    """Return the target that a model's name means: an alias, `default`, `local`, or `provider:model`.

    Raises UnknownModelError, and MissingVariableError if its address refers to a variable that is not set.
    """
    config = project.config
    if name in config.models:
        return _configured(name, config.models[name], environ)
    if name == DEFAULT_MODEL:
        return _default(config, environ)
    if name == EMBEDDED_MODEL:
        return _embedded(name)
    provider, colon, model = name.partition(":")
    if colon and model and provider in PROVIDERS:
        return _of_provider(name, provider, model, environ)
    raise _unknown(name, provider if colon else "", config)


def _configured(alias: str, model: ModelConfig, environ: Mapping[str, str]) -> ModelTarget:
    if model.upstream == "embedded":
        return _embedded(alias, model)
    base_url = PROVIDERS["openai"].base_url
    if model.base_url:
        base_url = _address(expand(model.base_url, environ), f"models.{alias}.base_url")
    wire_name = expand(model.model or "", environ)
    return ModelTarget(alias, "openai", base_url, model.api_key, wire_name, model.settings.given())


def _embedded(alias: str, model: ModelConfig | None = None) -> ModelTarget:
    name = EMBEDDED_ANSWERS_FIRST if model and model.first_step == "answer" else EMBEDDED_MODEL
    return ModelTarget(alias, "embedded", None, None, name, model.settings.given() if model else {})


def _default(config: ProjectConfig, environ: Mapping[str, str]) -> ModelTarget:
    others = sorted(config.models.keys() - {EMBEDDED_MODEL})
    if others:
        listed = ", ".join(f"`{alias}`" for alias in others)
        raise UnknownModelError(
            f"no model is called `{DEFAULT_MODEL}`, and the agent names no other",
            hint=f"Name one of {listed} as the agent's `model`, or add `[models.{DEFAULT_MODEL}]`.",
            model=DEFAULT_MODEL,
        )
    if environ.get("OPENAI_BASE_URL") or environ.get("OPENAI_API_KEY"):
        model = environ.get("AGENTFORGE_MODEL") or OPENAI_MODEL
        return _of_provider(DEFAULT_MODEL, "openai", model, environ)
    local = config.models.get(EMBEDDED_MODEL)
    return _configured(EMBEDDED_MODEL, local, environ) if local else _embedded(EMBEDDED_MODEL)


def _of_provider(alias: str, provider: str, model: str, environ: Mapping[str, str]) -> ModelTarget:
    known = PROVIDERS[provider]
    base_url, variable = known.base_url, known.key_variable
    if provider == "openai" and environ.get("OPENAI_BASE_URL"):  # OpenAI's own clients honour it too
        base_url = _address(environ["OPENAI_BASE_URL"], "OPENAI_BASE_URL")
        variable = variable if environ.get("OPENAI_API_KEY") else None
    return ModelTarget(alias, "openai", base_url, f"${{env:{variable}}}" if variable else None, model)


def _address(value: str, source: str) -> str:
    """Return an address that came out of the environment, checked as the one of a file is."""
    if not value.startswith(("http://", "https://")):
        raise InvalidValueError(
            f"`{source}` is `{shown(value)}`, which is not a http or https address",
            hint="Give the address of the endpoint, for example `http://localhost:8000/v1`.",
            key=source,
        )
    return value.rstrip("/")


def _unknown(name: str, provider: str, config: ProjectConfig) -> ConfigError:
    if provider:
        return UnknownModelError(
            f"the model `{name}` names the provider `{provider}`, which is not known",
            hint=f"{did_you_mean(provider, PROVIDERS)} For any other endpoint add a `[models.<alias>]`.",
            model=name,
        )
    aliases = sorted(config.models.keys() | {DEFAULT_MODEL, EMBEDDED_MODEL})
    hint = did_you_mean(name, aliases)
    listed = ", ".join(f"`{alias}`" for alias in aliases)
    return UnknownModelError(
        f"no model is called `{name}`",
        hint=hint + (f" Known: {listed}." if not hint.startswith("Known") else ""),
        model=name,
    )
