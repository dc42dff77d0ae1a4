"""The sample agent as a pydantic-ai user writes it: what the adapter's requests are compared with.

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

from pydantic_ai import Agent, StructuredDict
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIChatModelSettings

TOTALS = {"travel": 412.5, "meals": 96.0, "hotel": 730.0}
OUTPUT = {
    "type": "object",
    "properties": {"total": {"type": "number", "description": "The sum in euros."}},
    "required": ["total"],
}


def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b


def total_for(category: Literal["travel", "meals", "hotel"]) -> float:
    """Return the sum of the expenses of one category."""
    return TOTALS[category]


def make_agent(output: bool) -> "Agent[object, Any]":
    """Return the agent; its client is made once with it."""
    return Agent(
        OpenAIChatModel(os.environ.get("AGENTFORGE_MODEL", "scripted")),
        name="expenses",
        instructions="You answer questions about the expense report. Use the tools.",
        tools=[add, total_for],
        output_type=StructuredDict(OUTPUT) if output else str,
        model_settings=OpenAIChatModelSettings(
            temperature=0.2,
            max_tokens=300,
            top_p=0.9,
            stop_sequences=["END"],
            seed=7,
            presence_penalty=0.1,
            frequency_penalty=0.3,
        ),
    )


async def plain(agent: "Agent[object, Any]", question: str) -> Any:
    """Return the answer of a plain run."""
    return (await agent.run(question)).output


async def stream(agent: "Agent[object, Any]", question: str) -> Any:
    """Return the answer of a run whose model requests stream."""
    async with agent.run_stream_events(question) as events:
        async for _ in events:
            pass
        return events.result.output


async def loop(run: Any, agent: "Agent[object, Any]", question: str, count: int) -> None:
    """Print what a run costs; the first one, which pays for lazy imports and connections, does not count."""
    await run(agent, question)
    walls = []
    cpu = time.process_time()
    for _ in range(count):
        start = time.perf_counter()
        await run(agent, question)
        walls.append(time.perf_counter() - start)
    cpu = time.process_time() - cpu
    figures = {"cpu_ms": 1000 * cpu / count, "wall_ms": 1000 * statistics.median(walls)}
    print(json.dumps({"runs": count, **{name: round(value, 3) for name, value in figures.items()}}))


def agent() -> "Agent[object, Any]":
    """Return the agent as an entry point names it."""
    return make_agent(False)


async def main() -> None:
    """Run the agent as the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("question")
    parser.add_argument("--mode", choices=("plain", "stream"), default="plain")
    parser.add_argument("--json-output", action="store_true")
    parser.add_argument("--loop", type=int, default=0)
    options = parser.parse_args()
    run = stream if options.mode == "stream" else plain
    agent = make_agent(options.json_output)
    if options.loop:
        await loop(run, agent, options.question, options.loop)
        return
    answer = await run(agent, options.question)
    print(answer if isinstance(answer, str) else json.dumps(answer))


if __name__ == "__main__":
    asyncio.run(main())
