"""The client of a portable agent on CrewAI before 0.60: LangChain's, with the thread around CrewAI's one message."""

import asyncio
from typing import Any, Iterator, List, Optional

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.outputs import ChatResult
from langchain_openai import ChatOpenAI
from openai import OpenAI

from agentforge_worker.adapter import AgentSpec

from .loop_http import loop_client
from .transcript import Transcript, transcript

__all__ = ["ChainLLM", "make_client", "make_llm"]

_FIELDS = {"temperature", "max_tokens"}
_CLASSES = {"system": SystemMessage, "user": HumanMessage, "assistant": AIMessage}


class ChainLLM(ChatOpenAI):
    """LangChain's client, told of the conversation that the run goes on from."""

    own_stop: List[str] = []
    """The agent's own stops: LangChain refuses them beside CrewAI's."""

    def _generate(
        self, messages: List[BaseMessage], stop: Optional[List[str]] = None, *args: Any, **options: Any
    ) -> ChatResult:
        if self.streaming:  # it collects what `_stream` yields
            return super()._generate(messages, stop, *args, **options)
        said = transcript.get()
        with said.asking():
            stops = [*self.own_stop, *(stop or ())]
            return super()._generate(_with_thread(messages, said), stops, *args, **options)

    def _stream(
        self, messages: List[BaseMessage], stop: Optional[List[str]] = None, *args: Any, **options: Any
    ) -> Iterator[Any]:
        said = transcript.get()
        with said.asking():
            yield from super()._stream(_with_thread(messages, said), [*self.own_stop, *(stop or ())], *args, **options)


def make_client(loop: asyncio.AbstractEventLoop) -> Any:
    """Return OpenAI's client as LangChain makes it. Its address is the environment's: so CrewAI knows OpenAI's API."""
    return OpenAI(api_key="the run's", timeout=None, max_retries=2, http_client=loop_client(loop)).chat.completions


def make_llm(spec: AgentSpec, client: Any, streaming: bool = False) -> ChainLLM:
    """Return LangChain's client around OpenAI's: of its own it would use one HTTP client for both halves."""
    rest = {name: value for name, value in spec.settings.items() if name not in _FIELDS and name != "stop"}
    stop = spec.settings.get("stop") or []
    return ChainLLM(
        model=spec.model,
        api_key="the run's",
        client=client,
        async_client=client,  # never used: a run has a thread
        streaming=streaming,
        own_stop=[stop] if isinstance(stop, str) else stop,
        model_kwargs=rest,
        **{name: value for name, value in spec.settings.items() if name in _FIELDS},
    )


def _with_thread(messages: List[BaseMessage], said: Transcript) -> List[BaseMessage]:
    """Put the thread before CrewAI's prompt, and what followed the task behind the prompt's first form."""
    (prompt,) = messages
    text = str(prompt.content)
    if said.prompt is None:
        said.prompt = text
    if text.startswith(said.prompt):
        later = "".join("\n%s\nThought:" % message["content"] for message in said.later)
        text = said.prompt + later + text[len(said.prompt) :]
    earlier = [_CLASSES[message["role"]](content=message["content"]) for message in said.earlier]
    return [*earlier, HumanMessage(content=text)]
