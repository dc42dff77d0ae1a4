"""A model that answers by script: the one test double of AgentForge, an HTTP server that speaks the OpenAI formats.

Tests and benchmarks talk to it instead of a real model, builds check an environment with it. By default it calls the
first tool it is offered and then tells what the tool said. Behaviour is chosen by model name (`fail-429`, `slow-2`,
`cut-stream`, ...) or by a script, so that any client of any framework can reach it. In a process of its own:
`python -m agentforge_conformance.scripted_model --port 0` prints its base URL as the first line.
"""

from agentforge_conformance.scripted_model.deciding import Conversation
from agentforge_conformance.scripted_model.recording import RecordedRequest
from agentforge_conformance.scripted_model.schema import example
from agentforge_conformance.scripted_model.server import ScriptedModel
from agentforge_conformance.scripted_model.steps import CalledTool, Script, Step, builtin_step

__all__ = [
    "CalledTool",
    "Conversation",
    "RecordedRequest",
    "Script",
    "ScriptedModel",
    "Step",
    "builtin_step",
    "example",
]
