"""The sample agent as a user of pydantic-ai would write it.

native.py QUESTION [plain|stream|output|loop] [N]: one run (plain, streamed, or with a structured answer) prints the
answer; `loop` makes N runs in one process and prints {"runs", "cpu_ms", "wall_ms"} per run. OPENAI_BASE_URL,
OPENAI_API_KEY and OPENAI_MODEL say where to.
"""

import asyncio
import json
import os
import sys
import time
from typing import Any, Literal

from pydantic_ai import Agent, StructuredDict
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIChatModelSettings

INSTRUCTIONS = "You answer questions about the expense report. Use the tools."
TOTALS = {"travel": 412.5, "meals": 96.2, "office": 58.0}
OUTPUT = {"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]}


def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b


def total_for(category: Literal["travel", "meals", "office"]) -> float:
    """Return the total of one category of the report."""
    return TOTALS[category]


def make(output_type: Any = str) -> "Agent[object, Any]":
    """Make the agent."""
    return Agent(
        OpenAIChatModel(os.environ.get("OPENAI_MODEL", "scripted")),
        instructions=INSTRUCTIONS,
        tools=[add, total_for],
        output_type=output_type,
        model_settings=OpenAIChatModelSettings(
            temperature=0.2,
            max_tokens=300,
            top_p=0.9,
            stop_sequences=["END"],
            seed=7,
            frequency_penalty=0.1,
            presence_penalty=0.2,
        ),
    )


async def run(agent: "Agent[object, Any]", question: str) -> Any:
    """Return the answer of one run."""
    return (await agent.run(question)).output


async def stream(agent: "Agent[object, Any]", question: str) -> Any:
    """Return the answer of one run that is watched token by token."""
    async with agent.run_stream_events(question) as events:
        async for _ in events:
            pass
        return events.result.output


async def loop(agent: "Agent[object, Any]", question: str, runs: int) -> None:
    """Print what a run costs, the first one (imports, connections) left out."""
    await run(agent, question)
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(runs):
        await run(agent, question)
    cost = {"cpu_ms": time.process_time() - cpu, "wall_ms": time.perf_counter() - wall}
    print(json.dumps({"runs": runs, **{name: round(s * 1000 / runs, 3) for name, s in cost.items()}}))


if __name__ == "__main__":
    question, mode = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "plain"
    agent = make(StructuredDict(OUTPUT) if mode == "output" else str)
    if mode == "loop":
        asyncio.run(loop(agent, question, int(sys.argv[3])))
    else:
        answer = asyncio.run((stream if mode == "stream" else run)(agent, question))
        print(answer if isinstance(answer, str) else json.dumps(answer))
