"""The sample agent as a Haystack user writes it: what the adapter's requests are compared with.

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

from haystack.components.agents import Agent
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.tools import tool

TOTALS = {"travel": 412.5, "meals": 96.0, "hotel": 730.0}
OUTPUT = {
    "type": "object",
    "properties": {"total": {"type": "number", "description": "The sum in euros."}},
    "required": ["total"],
}


@tool
def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b


@tool
def total_for(category: Literal["travel", "meals", "hotel"]) -> float:
    """Return the sum of the expenses of one category."""
    return TOTALS[category]


def make_agent(output: bool) -> Agent:
    """Return the agent; its client is made once with it."""
    settings = {
        "temperature": 0.2,
        "max_tokens": 300,
        "top_p": 0.9,
        "stop": ["END"],
        "seed": 7,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.3,
    }
    if output:
        settings["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": OUTPUT}}
    return Agent(
        chat_generator=OpenAIChatGenerator(
            model=os.environ.get("AGENTFORGE_MODEL", "scripted"), generation_kwargs=settings, tools_strict=output
        ),
        tools=[add, total_for],
        system_prompt="You answer questions about the expense report. Use the tools.",
    )


async def run(agent: Agent, question: str, streams: bool) -> Any:
    """Return the answer of a run."""

    async def show(chunk: Any) -> None:
        pass

    end = await agent.run_async([ChatMessage.from_user(question)], streaming_callback=show if streams else None)
    return end["last_message"].text


async def loop(agent: Agent, question: str, streams: bool, count: int) -> None:
    """Print what a run costs; the first one, which pays for lazy imports and connections, does not count."""
    await run(agent, question, streams)
    walls = []
    cpu = time.process_time()
    for _ in range(count):
        start = time.perf_counter()
        await run(agent, question, streams)
        walls.append(time.perf_counter() - start)
    cpu = time.process_time() - cpu
    figures = {"cpu_ms": 1000 * cpu / count, "wall_ms": 1000 * statistics.median(walls)}
    print(json.dumps({"runs": count, **{name: round(value, 3) for name, value in figures.items()}}))


def agent() -> Agent:
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
    agent = make_agent(options.json_output)
    streams = options.mode == "stream"
    if options.loop:
        await loop(agent, options.question, streams, options.loop)
        return
    print(await run(agent, options.question, streams))


if __name__ == "__main__":
    asyncio.run(main())
