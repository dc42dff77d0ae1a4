"""What the suite of adapters proves: its capabilities, and the mark that says which one a test is about."""

from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["CAPABILITIES", "capability_of", "proves"]

Test = TypeVar("Test", bound=Callable[..., Any])

CAPABILITIES: dict[str, str] = {
    "basics": "The release that was asked for runs an agent: instructions, role and question reach the model.",
    "tools": "The model's calls reach the agent's tools, and their results go back to their calls.",
    "native-tool-calls": "Tools and their calls go over the wire as the API has them, not as text.",
    "settings": "Each model setting reaches the request, or the run warns of it.",
    "streaming": "Model requests stream when somebody watches, and else not.",
    "structured-output": "The answer fits a JSON Schema.",
    "threads": "An earlier conversation is known, in its roles.",
    "takeover": "A conversation that another framework began goes on from its last message.",
    "concurrency": "Twenty runs at once in one process, each with its own token and answer.",
    "cancel": "A cancelled run ends within two seconds, whatever it waits for.",
    "waiting": "A run that has to wait for a human leaves the framework, and goes on in a later attempt.",
    "replay": "A run that is executed again makes the same requests, byte for byte.",
    "failures": "A tool or a model that fails ends the run with a code.",
    "events": "Steps, messages and output are told in order.",
    "confinement": "Nothing is written outside of the run's folders, and no other machine is spoken to.",
    "fidelity": "Requests are those of the same agent written natively; exceptions are named in the adapter's README.",
    "native": "A user's own object of the framework runs unchanged.",
    "tool-replay": "Tools of such an object are called once in all attempts of a run.",
}
"""What the suite's tests are about, in words. Those that a manifest declares too have the same names there."""

_ATTRIBUTE = "capability"


def proves(capability: str) -> Callable[[Test], Test]:
    """Say which capability a test is about: what `agentforge compat` counts it for."""
    if capability not in CAPABILITIES:
        raise ValueError(f"`{capability}` is not a capability of the suite")

    def mark(test: Test) -> Test:
        setattr(test, _ATTRIBUTE, capability)
        return test

    return mark


def capability_of(test: object) -> str | None:
    """Return what a test is about; None for one that is not the suite's."""
    found = getattr(test, _ATTRIBUTE, None)
    return found if isinstance(found, str) else None
