"""The sample agent as an AutoGen user writes it: what the adapter's requests are compared with.

    python native.py [--mode plain|stream] [--json-output] QUESTION
    python native.py --loop N QUESTION        N runs in one process; prints CPU and wall milliseconds per run as JSON

OPENAI_BASE_URL, OPENAI_API_KEY and AGENTFORGE_MODEL name the endpoint.
"""

import argparse
import asyncio
import json
import os
import statistics
import time
from typing import Any, Literal

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.messages import StructuredMessage
from autogen_core.models import ModelInfo
from autogen_core.tools import FunctionTool
from autogen_ext.models.openai import OpenAIChatCompletionClient
from pydantic import BaseModel, Field

TOTALS = {"travel": 412.5, "meals": 96.0, "hotel": 730.0}


class Answer(BaseModel):  # noqa: D101 (its docstring would be part of the request)
    total: float = Field(description="The sum in euros.")


async def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b


async def total_for(category: Literal["travel", "meals", "hotel"]) -> float:
    """Return the sum of the expenses of one category."""
    return TOTALS[category]


def make_client() -> OpenAIChatCompletionClient:
    """Return the model client."""
    return OpenAIChatCompletionClient(
        model=os.environ.get("AGENTFORGE_MODEL", "scripted"),
        model_info=ModelInfo(
            vision=False, function_calling=True, json_output=True, structured_output=True, family="unknown"
        ),
        temperature=0.2,
        max_tokens=300,
        top_p=0.9,
        stop=["END"],
        seed=7,
        presence_penalty=0.1,
        frequency_penalty=0.3,
    )


def make_agent(client: OpenAIChatCompletionClient, output: bool, stream: bool) -> AssistantAgent:
    """Return the agent. It keeps its conversation: each task gets one of its own."""
    tools: list[Any] = [add, total_for]
    if output:  # tools must be strict beside a structured answer
        tools = [FunctionTool(tool, str(tool.__doc__), strict=True) for tool in tools]
    return AssistantAgent(
        "expenses",
        client,
        tools=tools,
        system_message="You answer questions about the expense report. Use the tools.",
        max_tool_iterations=10,
        output_content_type=Answer if output else None,
        model_client_stream=stream,
    )


async def plain(client: OpenAIChatCompletionClient, output: bool, question: str) -> Any:
    """Return the answer of a plain run."""
    answer = (await make_agent(client, output, stream=False).run(task=question)).messages[-1]
    return answer.content.model_dump() if isinstance(answer, StructuredMessage) else answer.content


async def stream(client: OpenAIChatCompletionClient, output: bool, question: str) -> Any:
    """Return the answer of a run whose model requests stream."""
    last: Any = None
    async for event in make_agent(client, output, stream=True).run_stream(task=question):
        last = event
    return last.messages[-1].content


def agent() -> AssistantAgent:
    """Return the agent as an entry point names it."""
    return make_agent(make_client(), False, False)


async def main() -> None:
    """Run the agent as the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("question")
    parser.add_argument("--mode", choices=("plain", "stream"), default="plain")
    parser.add_argument("--json-output", action="store_true")
    parser.add_argument("--loop", type=int, default=0)
    options = parser.parse_args()
    run = stream if options.mode == "stream" else plain
    client = make_client()
    answer = await run(client, options.json_output, options.question)
    if not options.loop:
        print(answer if isinstance(answer, str) else json.dumps(answer))
        return
    walls = []  # the first run, which pays for lazy imports and connections, does not count
    cpu = time.process_time()
    for _ in range(options.loop):
        start = time.perf_counter()
        await run(client, options.json_output, options.question)
        walls.append(time.perf_counter() - start)
    cpu = time.process_time() - cpu
    figures = {"cpu_ms": 1000 * cpu / options.loop, "wall_ms": 1000 * statistics.median(walls)}
    print(json.dumps({"runs": options.loop, **{name: round(value, 3) for name, value in figures.items()}}))


if __name__ == "__main__":
    asyncio.run(main())
