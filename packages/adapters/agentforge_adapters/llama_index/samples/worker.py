"""The sample agent as a LlamaIndex user writes it: what the adapter's requests are compared with.

    python worker.py [--mode plain|stream] [--json-output] QUESTION
    python worker.py --loop N QUESTION        N runs in one process; prints CPU and wall milliseconds per run as JSON

OPENAI_BASE_URL, OPENAI_API_KEY and AGENTFORGE_MODEL name the endpoint.
"""

import argparse
import asyncio
import json
import os
import statistics
import time
from typing import Any, Awaitable, Callable, Literal

from llama_index.core.agent import AgentRunner, FunctionCallingAgentWorker
from llama_index.core.bridge.pydantic import BaseModel, Field
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

TOTALS = {"travel": 412.5, "meals": 96.0, "hotel": 730.0}


FORM = "Put this answer into the form that is asked for.\n\nQuestion: {}\n\nAnswer: {}"


def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b


def total_for(category: Literal["travel", "meals", "hotel"]) -> float:
    """Return the sum of the expenses of one category."""
    return TOTALS[category]


class Answer(BaseModel):
    """The answer."""

    total: float = Field(description="The sum in euros.")


def answer(total: float) -> float:
    """Give the answer."""
    return total


def make_model() -> OpenAILike:
    """Return the model; it makes its client once."""
    return OpenAILike(
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


def make_worker(model: OpenAILike) -> FunctionCallingAgentWorker:
    """Return what all agents have in common."""
    return FunctionCallingAgentWorker.from_tools(
        [FunctionTool.from_defaults(add), FunctionTool.from_defaults(total_for)],
        llm=model,
        system_prompt="You answer questions about the expense report. Use the tools.",
    )


async def run(model: OpenAILike, worker: FunctionCallingAgentWorker, question: str, output: bool) -> Any:
    """Return the answer of a run."""
    agent = worker.as_agent(memory=ChatMemoryBuffer.from_defaults(llm=model))
    text = str(await agent.achat(question))
    if not output:
        return text
    tool = FunctionTool.from_defaults(answer, fn_schema=Answer)
    told = await model.apredict_and_call([tool], user_msg=FORM.format(question, text), tool_choice="answer")
    return told.sources[0].raw_output


async def loop(once: Callable[[], Awaitable[Any]], count: int) -> None:
    """Print what a run costs; the first one, which pays for lazy imports and connections, does not count."""
    await once()
    walls = []
    cpu = time.process_time()
    for _ in range(count):
        start = time.perf_counter()
        await once()
        walls.append(time.perf_counter() - start)
    cpu = time.process_time() - cpu
    figures = {"cpu_ms": 1000 * cpu / count, "wall_ms": 1000 * statistics.median(walls)}
    print(json.dumps({"runs": count, **{name: round(value, 3) for name, value in figures.items()}}))


def agent() -> AgentRunner:
    """Return the agent as an entry point names it."""
    return make_worker(make_model()).as_agent()


async def main() -> None:
    """Run the agent as the command line says. These agents do not stream."""
    parser = argparse.ArgumentParser()
    parser.add_argument("question")
    parser.add_argument("--mode", choices=("plain", "stream"), default="plain")
    parser.add_argument("--json-output", action="store_true")
    parser.add_argument("--loop", type=int, default=0)
    options = parser.parse_args()
    model = make_model()
    worker = make_worker(model)

    async def once() -> Any:
        return await run(model, worker, options.question, options.json_output)

    if options.loop:
        await loop(once, options.loop)
        return
    answer = await once()
    print(answer if isinstance(answer, str) else json.dumps(answer))


if __name__ == "__main__":
    asyncio.run(main())
