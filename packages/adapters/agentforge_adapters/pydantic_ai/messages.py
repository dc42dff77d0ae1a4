"""The conversation in pydantic-ai's form and in the neutral one."""

import json
from typing import Any, Dict, List, Optional, Sequence

from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelRequestPart,
    ModelResponse,
    ModelResponsePart,
    RetryFeedbackPart,
    SystemPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)

from agentforge_worker.adapter import Message

from .output import OUTPUT_TOOL, Schema, unwrapped

__all__ = ["from_native", "to_native"]


def to_native(messages: Sequence[Message]) -> List[ModelMessage]:
    """Return the history that an agent continues."""
    history: List[ModelMessage] = []
    tool_names: Dict[str, str] = {}
    for message in messages:
        if message.role == "assistant":
            tool_names.update({call["id"]: call["name"] for call in message.tool_calls})
            history.append(ModelResponse(parts=_response_parts(message)))
        else:
            history.append(ModelRequest(parts=[_request_part(message, tool_names)]))
    return history


def from_native(messages: Sequence[ModelMessage], schema: Optional[Schema]) -> List[Message]:
    """Return what a run added, in the neutral form; a structured answer is an assistant message with JSON in it.

    The user's prompt is left out: it is the run's input.
    """
    return [
        neutral
        for message in messages
        for neutral in (_of_response(message, schema) if isinstance(message, ModelResponse) else _of_request(message))
    ]


def _response_parts(message: Message) -> List[ModelResponsePart]:
    parts: List[ModelResponsePart] = [TextPart(message.content)] if message.content else []
    return parts + [ToolCallPart(call["name"], call["arguments"], call["id"]) for call in message.tool_calls]


def _request_part(message: Message, tool_names: Dict[str, str]) -> ModelRequestPart:
    if message.role == "system":
        return SystemPromptPart(message.content)
    if message.role == "tool":
        call_id = message.tool_call_id or ""
        return ToolReturnPart(tool_names.get(call_id, ""), message.content, call_id)
    return UserPromptPart(message.content)


def _of_response(message: ModelResponse, schema: Optional[Schema]) -> List[Message]:
    calls = [
        {"id": call.tool_call_id, "name": call.tool_name, "arguments": call.args_as_dict()}
        for call in message.tool_calls
        if call.tool_name != OUTPUT_TOOL
    ]
    answers = [unwrapped(schema, call.args_as_dict()) for call in message.tool_calls if call.tool_name == OUTPUT_TOOL]
    neutral = [Message("assistant", message.text or "", calls)] if message.text or calls else []
    return neutral + [Message("assistant", json.dumps(answer, ensure_ascii=False)) for answer in answers]


def _of_request(message: ModelRequest) -> List[Message]:
    return [neutral for part in message.parts for neutral in _of_part(part)]


def _of_part(part: Any) -> List[Message]:
    if isinstance(part, ToolReturnPart) and part.tool_name != OUTPUT_TOOL:
        return [Message("tool", part.model_response_str(), tool_call_id=part.tool_call_id)]
    if isinstance(part, RetryFeedbackPart):
        return [Message("user", part.model_response())]
    return []
