"""What LangChain's callbacks tell of a run, as the host's steps and messages. For all releases."""

from typing import Any, Dict, List, Optional
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.outputs import LLMResult

from agentforge_worker.adapter import Message, RunContext, StepScope

from .messages import from_langchain

__all__ = ["Steps"]


class Steps(AsyncCallbackHandler):
    """Tells the host of model steps, tool steps and the model's messages of one run."""

    def __init__(self, ctx: RunContext) -> None:
        self.said: List[Message] = []
        """What the model said, one message for each request."""
        self._ctx = ctx
        self._open: Dict[UUID, StepScope] = {}

    async def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: UUID, **rest: Any) -> None:
        """Start a model step."""
        self._start(run_id, "model", "model")

    async def on_llm_end(self, response: LLMResult, *, run_id: UUID, **rest: Any) -> None:
        """Finish a model step."""
        self._finish(run_id)
        message = getattr(response.generations[0][0], "message", None)
        if message is not None:
            self.said.append(from_langchain(message))
            self._ctx.emit("message.added", vars(self.said[-1]))

    async def on_llm_error(self, error: BaseException, *, run_id: UUID, **rest: Any) -> None:
        """Finish a model step that failed."""
        self._finish(run_id, error)

    async def on_tool_start(self, serialized: Any, input_str: str, *, run_id: UUID, **rest: Any) -> None:
        """Start a tool step."""
        self._start(run_id, str((serialized or {}).get("name", "tool")), "tool")

    async def on_tool_end(self, output: Any, *, run_id: UUID, **rest: Any) -> None:
        """Finish a tool step."""
        self._finish(run_id)

    async def on_tool_error(self, error: BaseException, *, run_id: UUID, **rest: Any) -> None:
        """Finish a tool step that failed."""
        self._finish(run_id, error)

    def _start(self, run_id: UUID, name: str, kind: str) -> None:
        self._open[run_id] = self._ctx.step(name, kind=kind)
        self._open[run_id].__enter__()

    def _finish(self, run_id: UUID, error: Optional[BaseException] = None) -> None:
        step = self._open.pop(run_id, None)
        if step is not None:
            step.__exit__(type(error) if error else None, error, None)
