"""The client of a portable agent on CrewAI 0.86 and 0.150: LiteLLM's, with the thread around CrewAI's own messages."""

from typing import Any, Dict, List

import litellm
from crewai import LLM

from .transcript import transcript

__all__ = ["PlainLLM", "ReactLLM"]

Messages = List[Dict[str, str]]


class ReactLLM(LLM):
    """CrewAI's client, told of the conversation that the run goes on from."""

    def call(self, messages: Messages, *args: Any, **options: Any) -> Any:
        """Ask the model, as a step of the run."""
        with transcript.get().asking():
            return self.ask(_with_thread(messages), *args, **options)

    def ask(self, messages: Messages, *args: Any, **options: Any) -> Any:
        """Ask the model."""
        return super().call(messages, *args, **options)

    def set_callbacks(self, callbacks: List[Any]) -> None:
        """Leave LiteLLM's callbacks as they are: they belong to the process, and tokens are counted by the host."""


class PlainLLM(ReactLLM):
    """The same for releases whose `LLM.call` puts something in the place of the process's `sys.stdout`.

    Two threads that do so at the same time leave it there, one layer more each time.
    """

    _SENT = (
        *("model", "timeout", "temperature", "top_p", "n", "stop", "presence_penalty", "frequency_penalty"),
        *("logit_bias", "response_format", "seed", "logprobs", "top_logprobs", "api_version", "api_key"),
    )

    def ask(self, messages: Messages, *args: Any, **options: Any) -> Any:
        """Make the request that CrewAI's own `call` makes."""
        request = {name: getattr(self, name) for name in self._SENT}
        request["max_tokens"] = self.max_tokens or self.max_completion_tokens
        request["api_base"] = self.base_url
        given = {name: value for name, value in request.items() if value is not None}
        answer = litellm.completion(messages=messages, stream=False, **given, **self.kwargs)
        return answer["choices"][0]["message"]["content"]


def _with_thread(messages: Messages) -> Messages:
    """Put the thread between CrewAI's instructions and its task, and what followed the task behind that."""
    thread = transcript.get()
    if len(messages) < 2 or messages[0]["role"] != "system":  # not the agent's, but a summary or a conversion
        return messages
    return [messages[0], *thread.earlier, messages[1], *thread.later, *messages[2:]]
