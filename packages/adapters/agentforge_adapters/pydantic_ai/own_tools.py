"""The tools of a user's own agent, which run in this process: each call is made once in all attempts of a run."""

from typing import Annotated, Any, List, Union

from pydantic import ConfigDict, Field, TypeAdapter
from pydantic_ai.exceptions import ModelRetry, ToolFailed, ToolFailedError, ToolRetryError
from pydantic_ai.messages import ToolReturn, ToolReturnContent

from agentforge_worker.adapter import RunContext

__all__ = ["call_once"]

_RETURNED: "TypeAdapter[Any]" = TypeAdapter(
    Annotated[Union[ToolReturn, ToolReturnContent], Field(union_mode="left_to_right")],
    config=ConfigDict(ser_json_bytes="base64", val_json_bytes="base64"),
)
"""What tools return, as JSON and back. The model is told the same of both (pydantic-ai sees to that)."""


async def call_once(run: RunContext, call: Any, tool_def: Any, args: Any, handler: Any) -> Any:
    """Return what a tool returns, or returned in an earlier attempt. A tool says itself that it may be repeated:
    `metadata={"idempotent": True}`.
    """
    told: List[Exception] = []

    async def made() -> Any:
        try:
            return _RETURNED.dump_python(await handler(args), mode="json", by_alias=True)
        except (ToolRetryError, ToolFailedError) as error:
            told.append(error)
            raise (ModelRetry if isinstance(error, ToolRetryError) else ToolFailed)(str(error)) from error

    idempotent = bool((tool_def.metadata or {}).get("idempotent"))
    try:
        value = await run.tool_effect(call.tool_name, call.args_as_dict(), made, idempotent=idempotent)
    except (ModelRetry, ToolFailed):
        if told:  # the framework's own form of it, in which it is counted already
            raise told[0] from None
        raise
    return _RETURNED.validate_python(value)
