"""The exceptions of the adapter interface; `adapter` has them all. Standard library only, Python 3.8 syntax."""

import asyncio

__all__ = ["Cancelled", "EffectFailed", "StepLimitReached", "ToolFailed"]


class Cancelled(asyncio.CancelledError):
    """The run is to leave the framework: it was cancelled, or it waits for a human and goes on in a later attempt.

    Raised by `RunContext.check` and by every effect from then on. Like asyncio's own cancellation it is no
    `Exception`: code that tells the model of whatever a tool raises lets it pass.
    """


class StepLimitReached(Exception):
    """The agent has taken `max_steps` steps without an answer; for adapters whose framework has no such limit."""

    def __init__(self, max_steps: int) -> None:
        super().__init__("no answer within %d steps" % max_steps)
        self.max_steps = max_steps


class EffectFailed(Exception):
    """The host could not do what it was asked. `code` is the AF code, `text` says why."""

    def __init__(self, code: str, text: str, hint: str = "", origin: str = "host") -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.hint = hint
        self.origin = origin


class ToolFailed(EffectFailed):
    """A tool call that did not succeed. `code` is the AF code, `text` what a model may be told."""

    def __init__(self, code: str, text: str, hint: str = "") -> None:
        super().__init__(code, text, hint, "tool")
