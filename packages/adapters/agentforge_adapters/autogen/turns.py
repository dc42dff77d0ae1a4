"""AutoGen 0.4 to 0.6: its agents take one turn (the model, and the tools that it asks for), and are run on and on."""

from typing import Any, Dict

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.base import TaskResult
from autogen_agentchat.messages import ToolCallSummaryMessage
from autogen_core import CancellationToken

from agentforge_worker.adapter import AgentSpec

from .adapter import AutoGenAdapter, Portable, rounds
from .failing import raise_failure
from .schemas import output_form

__all__ = ["TurnsAdapter"]


class TurnsAdapter(AutoGenAdapter):
    """Runs agents of AutoGen 0.4 to 0.6."""

    def _arguments(self, spec: AgentSpec) -> Dict[str, Any]:
        return {"response_format": output_form(spec.output)} if spec.output else {}

    def _options(self, spec: AgentSpec) -> Dict[str, Any]:
        return {}

    async def _until_answered(
        self, agent: Portable, assistant: AssistantAgent, task: Any, token: CancellationToken
    ) -> TaskResult:
        done = await assistant.run(task=task, cancellation_token=token)
        for _ in range(rounds(agent.spec) - 1):
            if not isinstance(done.messages[-1], ToolCallSummaryMessage):
                break
            raise_failure()
            done = await assistant.run(cancellation_token=token)
        return done
