"""The sample agent as a LangChain user writes it: what the adapter's requests are compared with.

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

from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

TOTALS = {"travel": 412.5, "meals": 96.0, "hotel": 730.0}
OUTPUT = {
    "title": "answer",
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


def make_agent(output: bool) -> Any:
    """Return the agent; its client is made once with it."""
    model = ChatOpenAI(
        model=os.environ.get("AGENTFORGE_MODEL", "scripted"),
        temperature=0.2,
        max_tokens=300,
        top_p=0.9,
        stop=["END"],
        seed=7,
        presence_penalty=0.1,
        frequency_penalty=0.3,
    )
    return create_agent(
        model,
        [add, total_for],
        system_prompt="You answer questions about the expense report. Use the tools.",
        response_format=OUTPUT if output else None,
    )


async def plain(agent: Any, question: str) -> Any:
    """Return the answer of a plain run."""
    end = await agent.ainvoke({"messages": [{"role": "user", "content": question}]})
    return end.get("structured_response") or end["messages"][-1].text


async def stream(agent: Any, question: str) -> Any:
    """Return the answer of a run whose model requests stream."""
    answer = ""
    async for token, _ in agent.astream({"messages": [{"role": "user", "content": question}]}, stream_mode="messages"):
        answer = "" if token.type == "tool" else answer + token.text
    return answer


def agent() -> Any:
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
    if not options.loop:
        answer = await run(agent, options.question)
        print(answer if isinstance(answer, str) else json.dumps(answer))
        return
    await run(agent, options.question)  # the first run pays for lazy imports
    walls = []
    cpu = time.process_time()
    for _ in range(options.loop):
        start = time.perf_counter()
        await run(agent, options.question)
        walls.append(time.perf_counter() - start)
    cpu = time.process_time() - cpu
    figures = {"cpu_ms": 1000 * cpu / options.loop, "wall_ms": 1000 * statistics.median(walls)}
    print(json.dumps({"runs": options.loop, **{name: round(value, 3) for name, value in figures.items()}}))


if __name__ == "__main__":
    asyncio.run(main())
