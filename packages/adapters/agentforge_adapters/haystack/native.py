"""Native agents: the user's own agents, pipelines and components, run as they are."""

import asyncio
import inspect
import json
from dataclasses import dataclass
from typing import Any, Dict, Iterator

from haystack.dataclasses import ChatMessage

from agentforge_worker.adapter import AgentCard, EffectFailed, Natives, RunContext, Source, Start

__all__ = [
    "NATIVES",
    "Native",
    "components_of",
    "describe",
    "input_of",
    "load",
    "object_in_thread",
    "object_of",
    "run_pipeline",
    "value_of",
]


@dataclass(frozen=True)
class Native:
    """What an entry point names: an object, or a function that makes one for each run."""

    found: Any


def _is_native(found: Any) -> bool:
    return not inspect.isclass(found) and (hasattr(found, "walk") or hasattr(found, "__haystack_input__"))


NATIVES = Natives("an agent, a pipeline or a component of Haystack", _is_native)


def load(source: Source) -> Native:
    """Import it."""
    return Native(NATIVES.named(source.module, source.attribute))


def describe(native: Native) -> AgentCard:
    """Name it; of a function nothing but its name is known before a run."""
    found = native.found
    if inspect.isroutine(found):
        return AgentCard(found.__name__, inspect.getdoc(found) or "")
    parts = list(components_of(found))
    models = sorted({part.model for part in parts if isinstance(getattr(part, "model", None), str)})
    return AgentCard(type(found).__name__, "", [], models, {"components": [type(part).__name__ for part in parts]})


async def object_of(native: Native, ctx: RunContext) -> Any:
    """Return what is to run."""
    return _with_key(await NATIVES.made(native.found), native, ctx)


def object_in_thread(native: Native, ctx: RunContext) -> Any:
    """Do as `object_of` in a thread that is not the loop's."""
    return _with_key(NATIVES.made_blocking(native.found, ctx.wait), native, ctx)


def _with_key(made: Any, native: Native, ctx: RunContext) -> Any:
    """Give the clients of an object that outlives a run the key of this one."""
    if made is not native.found:
        return made
    for part in components_of(native.found):
        for client in (getattr(part, "client", None), getattr(part, "async_client", None)):
            if hasattr(client, "api_key"):
                client.api_key = ctx.token
    return made


def components_of(found: Any) -> Iterator[Any]:
    """Yield an object, the components of a pipeline, and the models of agents."""
    for part in [each for _, each in found.walk()] if hasattr(found, "walk") else [found]:
        yield part
        if hasattr(part, "chat_generator"):
            yield part.chat_generator


def input_of(request: Start) -> Dict[str, Any]:
    """Return the inputs of a pipeline: an input that is an object, or the text of one, as commands give it."""
    given = request.input
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            given = None
    if not isinstance(given, dict):
        text = "a pipeline takes an object with the inputs of its components, and not text"
        raise EffectFailed("AF422", text, 'Give it one: {"prompt": {"topic": "..."}}', "user")
    return dict(given)


async def run_pipeline(found: Any, inputs: Dict[str, Any]) -> Any:
    """Run a pipeline or a component: on the loop if it can, else in a thread."""
    if not hasattr(found, "walk"):  # a component takes its inputs by name
        work = found.run_async(**inputs) if hasattr(found, "run_async") else asyncio.to_thread(found.run, **inputs)
        return await work
    if hasattr(found, "run_async"):
        return await found.run_async(inputs)
    return await asyncio.to_thread(found.run, inputs)


def value_of(output: Any) -> Any:
    """Return what it answered as a JSON value."""
    if isinstance(output, dict):
        return {str(name): value_of(value) for name, value in output.items()}
    if isinstance(output, (list, tuple)):
        return [value_of(each) for each in output]
    if output is None or isinstance(output, (str, int, float, bool)):
        return output
    if isinstance(output, ChatMessage):
        return getattr(output, "text", None) or getattr(output, "content", None) or output.to_dict()
    return output.to_dict() if hasattr(output, "to_dict") else str(output)
