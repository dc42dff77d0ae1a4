"""Keeping the secrets of a run's tools out of all that is recorded, logged or told to a model."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from agentforge.gateway import REDACTED, SHORTEST_REDACTED, Secret

__all__ = ["Redaction"]

_SHORTEST_LINE = 16


class Redaction:
    """Replaces secrets wherever they stand in what tools return, print or say of their failures.

    As with the keys of models, what has fewer than eight characters is no secret: replacing it would garble text. Of a
    secret with several lines, each long one counts: a log has them one by one.
    """

    def __init__(self, secrets: Iterable[Secret] = ()) -> None:
        texts = {text for secret in secrets for text in _parts(secret.reveal())}
        # The longest first: one may be a part of another.
        long = sorted((text for text in texts if len(text) >= SHORTEST_REDACTED), key=lambda text: (-len(text), text))
        self._found = re.compile("|".join(map(re.escape, long))) if long else None

    @classmethod
    def of(cls, variables: Mapping[str, str], names: Iterable[str]) -> "Redaction":
        """Return one for those of the variables that are secret."""
        return cls(Secret(variables[name]) for name in names)

    def __bool__(self) -> bool:
        return self._found is not None

    def text(self, text: str) -> str:
        """Return a text without the secrets."""
        return text if self._found is None else self._found.sub(REDACTED, text)

    def value(self, value: Any) -> Any:
        """Return a JSON value whose texts and keys are without the secrets."""
        if self._found is None:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.value(key): self.value(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(each) for each in value]
        return value


def _parts(secret: str) -> list[str]:
    lines = [line.strip() for line in secret.splitlines()]
    return [secret, secret.strip(), *(line for line in lines if len(line) >= _SHORTEST_LINE)]
