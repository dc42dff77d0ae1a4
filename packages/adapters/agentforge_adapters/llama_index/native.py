"""Native agents: the user's own workflows, agents and engines, run as they are."""

import asyncio
import inspect
import json
import os
from dataclasses import dataclass
from typing import Any, Awaitable, Dict, Iterator, List, Optional

from llama_index.core import Settings
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.llms import LLM
from llama_index.core.workflow import Workflow

from agentforge_worker.adapter import AgentCard, BuildContext, Natives, RunContext, Source, Start

from .messages import to_native

__all__ = ["NATIVES", "Native", "describe", "end_of", "load", "object_of", "run", "value_of"]


@dataclass(frozen=True)
class Native:
    """What an entry point names: an object, or a function that makes one for each run."""

    found: Any


def _is_native(found: Any) -> bool:
    runs = isinstance(found, Workflow) or hasattr(found, "achat") or hasattr(found, "aquery")
    return runs and not inspect.isclass(found)


NATIVES = Natives("a workflow, an agent, a chat engine or a query engine of LlamaIndex", _is_native)


def load(source: Source, ctx: BuildContext) -> Native:
    """Import it. LlamaIndex has its own name for the address of the models."""
    os.environ["OPENAI_API_BASE"] = ctx.gateway.base_url
    return Native(NATIVES.named(source.module, source.attribute))


def describe(native: Native) -> AgentCard:
    """Name it; of a function nothing but its name is known before a run."""
    found = native.found
    if inspect.isroutine(found):
        return AgentCard(found.__name__, inspect.getdoc(found) or "")
    tools = [tool.metadata.name for tool in getattr(found, "tools", None) or () if hasattr(tool, "metadata")]
    name = getattr(found, "name", None)
    return AgentCard(name if isinstance(name, str) else type(found).__name__, "", tools, _model_names(found))


async def object_of(native: Native, ctx: RunContext) -> Any:
    """Return what is to run. Models of an object that outlives a run are given the key of this one."""
    made = await NATIVES.made(native.found)
    if made is not native.found:
        return made
    for model in [*_models(native.found), Settings.llm]:
        if hasattr(model, "reuse_client"):
            model.api_key, model.reuse_client = ctx.token, False  # type: ignore[attr-defined]
    return made


async def run(found: Any, request: Start) -> Any:
    """Run it to its end. An input that is an object goes in as the arguments of a workflow's start event."""
    history = to_native(request.messages)
    if isinstance(found, Workflow):
        return await end_of(found.run(**_start(found, request, history)))
    if hasattr(found, "achat"):
        return await found.achat(request.text, chat_history=history)
    return await found.aquery(request.text)


async def end_of(handler: Any) -> Any:
    """Wait for a workflow. What it has under way ends with it only if it is asked to end."""
    end = asyncio.ensure_future(_awaited(handler))
    try:
        return await asyncio.shield(end)
    except asyncio.CancelledError:
        if hasattr(handler, "cancel_run"):
            await handler.cancel_run()
        else:
            end.cancel()
        await asyncio.wait([end])
        if not end.cancelled():
            end.exception()  # it is nobody's
        raise


def value_of(output: Any) -> Any:
    """Return what it answered as a JSON value."""
    if getattr(output, "structured_response", None) is not None:
        return output.structured_response
    if output is None or isinstance(output, (str, int, float, bool, list, dict)):
        return output
    if hasattr(output, "response"):  # of an agent or an engine
        return str(output)
    return output.model_dump(mode="json") if hasattr(output, "model_dump") else output


def _start(found: Workflow, request: Start, history: List[ChatMessage]) -> Dict[str, Any]:
    fields = _fields(request.input)
    if fields is not None:
        return fields
    if not _takes_messages(found):
        return {"input": request.input}
    return {"user_msg": ChatMessage(role="user", content=request.text), "chat_history": history}


def _fields(given: Any) -> Optional[Dict[str, Any]]:
    """Return the start event's fields: an input that is an object, or the text of one, as commands give it."""
    if isinstance(given, str) and given.lstrip().startswith("{"):
        try:
            given = json.loads(given)
        except ValueError:
            return None
    return dict(given) if isinstance(given, dict) else None


def _takes_messages(found: Workflow) -> bool:
    """Whether it is an agent of LlamaIndex, or several of them."""
    return "user_msg" in inspect.signature(found.run).parameters or hasattr(found, "agents") or hasattr(found, "tools")


def _models(found: Any) -> Iterator[LLM]:
    """Yield the models in the attributes of an object, its agents and its class."""
    held = [found, *(getattr(found, "agents", None) or {}).values()] if isinstance(found, Workflow) else [found]
    values = [
        value
        for each in held
        for kind in (each, *type(each).__mro__)
        for value in getattr(kind, "__dict__", {}).values()
    ]
    seen = {id(value): value for value in values if isinstance(value, LLM)}
    return iter(seen.values())


def _model_names(found: Any) -> List[str]:
    return sorted({str(model.metadata.model_name) for model in _models(found)})


async def _awaited(handler: Awaitable[Any]) -> Any:
    return await handler
