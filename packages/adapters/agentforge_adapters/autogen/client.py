"""AutoGen's client for OpenAI with the key of the run that asks; a run's model calls are steps."""

import contextlib
from typing import Any, AsyncGenerator, Callable, Dict, Iterator, Optional, Sequence, Union

from autogen_core.models import AssistantMessage, CreateResult, LLMMessage, ModelInfo
from autogen_ext.models.openai import BaseOpenAIChatCompletionClient
from openai import AsyncOpenAI

from agentforge_worker.adapter import current_run

from .failing import raise_failure
from .messages import from_native

__all__ = ["RunClient"]

_ANY_MODEL = ModelInfo(
    vision=False,
    function_calling=True,
    json_output=True,
    structured_output=True,
    family="unknown",
    multiple_system_messages=True,  # a thread's go out as they are: AutoGen would join them, or refuse
)
"""What is assumed of a model: AutoGen knows some by name, and wants to be told of all others."""


class RunClient(BaseOpenAIChatCompletionClient):
    """AutoGen's own client, over an OpenAI client that all agents share."""

    def __init__(self, client: AsyncOpenAI, arguments: Dict[str, Any]) -> None:
        super().__init__(client, create_args=arguments, model_info=_ANY_MODEL)

    async def create(self, messages: Sequence[LLMMessage], **options: Any) -> CreateResult:
        """Ask the model, unless a tool has failed: AutoGen would tell it of that."""
        raise_failure()
        with _model_step() as answered:
            return answered(await super().create(messages, **options))

    async def create_stream(
        self, messages: Sequence[LLMMessage], **options: Any
    ) -> AsyncGenerator[Union[str, CreateResult], None]:
        """Do as `create`, and yield the answer as it comes."""
        raise_failure()
        with _model_step() as answered:
            async for chunk in super().create_stream(messages, **options):
                yield answered(chunk) if isinstance(chunk, CreateResult) else chunk


@contextlib.contextmanager
def _model_step() -> Iterator[Callable[[CreateResult], CreateResult]]:
    run = current_run()
    result: Optional[CreateResult] = None

    def answered(given: CreateResult) -> CreateResult:
        nonlocal result
        result = given
        return given

    with run.step("model", kind="model"):
        yield answered
    if result is not None:
        answer = AssistantMessage(content=result.content, thought=result.thought, source="model")
        for message in from_native([answer]):
            run.emit("message.added", vars(message))
