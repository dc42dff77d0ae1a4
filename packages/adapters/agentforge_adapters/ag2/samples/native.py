"""The sample agent as an AG2 user writes it: what the adapter's requests are compared with.

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

from ag2 import Agent
from ag2.config import OpenAIConfig
from ag2.response import ResponseSchema

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


def make_agent(output: bool, stream: bool) -> "Agent[Any]":
    """Return the agent."""
    return Agent(
        "expenses",
        "You answer questions about the expense report. Use the tools.",
        config=OpenAIConfig(
            os.environ.get("AGENTFORGE_MODEL", "scripted"),
            temperature=0.2,
            max_tokens=300,
            top_p=0.9,
            stop=["END"],
            seed=7,
            presence_penalty=0.1,
            frequency_penalty=0.3,
            streaming=stream,
        ),
        tools=[add, total_for],
        response_schema=ResponseSchema.from_schema(OUTPUT, name="answer") if output else None,
    )


def agent() -> "Agent[Any]":
    """Return the agent as an entry point names it."""
    return make_agent(False, False)


async def main() -> None:
    """Run the agent as the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("question")
    parser.add_argument("--mode", choices=("plain", "stream"), default="plain")
    parser.add_argument("--json-output", action="store_true")
    parser.add_argument("--loop", type=int, default=0)
    options = parser.parse_args()
    agent = make_agent(options.json_output, options.mode == "stream")
    answer = (await agent.ask(options.question)).body
    if not options.loop:
        print(answer)
        return
    walls = []  # the first run, which pays for lazy imports and connections, does not count
    cpu = time.process_time()
    for _ in range(options.loop):
        start = time.perf_counter()
        await agent.ask(options.question)
        walls.append(time.perf_counter() - start)
    cpu = time.process_time() - cpu
    figures = {"cpu_ms": 1000 * cpu / options.loop, "wall_ms": 1000 * statistics.median(walls)}
    print(json.dumps({"runs": options.loop, **{name: round(value, 3) for name, value in figures.items()}}))


if __name__ == "__main__":
    asyncio.run(main())
