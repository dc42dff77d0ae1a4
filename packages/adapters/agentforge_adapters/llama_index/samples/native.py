"""The sample agent as a LlamaIndex user writes it: what the adapter's requests are compared with.

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

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel, Field

TOTALS = {"travel": 412.5, "meals": 96.0, "hotel": 730.0}


class answer(BaseModel):  # noqa: N801 - the model is told this name
    """The answer."""

    total: float = Field(description="The sum in euros.")


def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b


def total_for(category: Literal["travel", "meals", "hotel"]) -> float:
    """Return the sum of the expenses of one category."""
    return TOTALS[category]


def make_agent(streams: bool, output: bool) -> FunctionAgent:
    """Return the agent; its client is made once with it."""
    model = OpenAILike(
        model=os.environ.get("AGENTFORGE_MODEL", "scripted"),
        api_base=os.environ["OPENAI_BASE_URL"],
        api_key=os.environ["OPENAI_API_KEY"],
        is_chat_model=True,
        is_function_calling_model=True,
        context_window=128_000,
        temperature=0.2,
        max_tokens=300,
        additional_kwargs={
            "top_p": 0.9,
            "stop": ["END"],
            "seed": 7,
            "presence_penalty": 0.1,
            "frequency_penalty": 0.3,
        },
    )
    return FunctionAgent(
        name="expenses",
        description="Answers questions about an expense report.",
        system_prompt="You answer questions about the expense report. Use the tools.",
        tools=[add, total_for],
        llm=model,
        output_cls=answer if output else None,
        streaming=streams,  # releases before 0.13 stream in every case
    )


async def run(agent: FunctionAgent, question: str) -> Any:
    """Return the answer of a run."""
    end = await agent.run(user_msg=question)
    return end.structured_response or str(end)


async def loop(agent: FunctionAgent, question: str, count: int) -> None:
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


def agent() -> FunctionAgent:
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
    agent = make_agent(options.mode == "stream", options.json_output)
    if options.loop:
        await loop(agent, options.question, options.loop)
        return
    answer = await run(agent, options.question)
    print(answer if isinstance(answer, str) else json.dumps(answer))


if __name__ == "__main__":
    asyncio.run(main())
