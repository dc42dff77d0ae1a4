"""The sample agent as a user of LangChain 0.0 writes it: what the adapter's requests are compared with.

    python openai_tools.py [--mode plain|stream] [--json-output] QUESTION
    python openai_tools.py --loop N QUESTION    N runs in one process; prints CPU and wall milliseconds per run as JSON

OPENAI_BASE_URL, OPENAI_API_KEY and AGENTFORGE_MODEL name the endpoint.
"""

import argparse
import asyncio
import json
import os
import statistics
import time
from typing import Any, Literal

from langchain.agents import AgentExecutor, create_openai_tools_agent
from langchain.agents.format_scratchpad.openai_tools import format_to_openai_tool_messages
from langchain.agents.output_parsers.openai_tools import OpenAIToolsAgentOutputParser
from langchain.chat_models import ChatOpenAI
from langchain.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain.schema import AgentFinish
from langchain.schema.runnable import RunnablePassthrough
from langchain.tools import tool
from langchain.tools.render import format_tool_to_openai_tool

TOTALS = {"travel": 412.5, "meals": 96.0, "hotel": 730.0}
OUTPUT = {
    "type": "function",
    "function": {
        "name": "answer",
        "description": "The answer.",
        "parameters": {
            "type": "object",
            "properties": {"total": {"type": "number", "description": "The sum in euros."}},
            "required": ["total"],
        },
    },
}


@tool
def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b


@tool
def total_for(category: Literal["travel", "meals", "hotel"]) -> float:
    """Return the sum of the expenses of one category."""
    return TOTALS[category]


def parse(message: Any) -> Any:
    """Let a call of `answer` be the end, as in LangChain's guide to agents that return structured output."""
    plan = OpenAIToolsAgentOutputParser().invoke(message)
    if isinstance(plan, AgentFinish):
        return plan
    answers = [action.tool_input for action in plan if action.tool == "answer"]
    return AgentFinish({"output": answers[0]}, "") if answers else plan


def make_agent(output: bool, stream: bool) -> AgentExecutor:
    """Return the agent; its client is made once with it."""
    model = ChatOpenAI(
        model=os.environ.get("AGENTFORGE_MODEL", "scripted"),
        temperature=0.2,
        max_tokens=300,
        streaming=stream,
        model_kwargs={"top_p": 0.9, "stop": ["END"], "seed": 7, "presence_penalty": 0.1, "frequency_penalty": 0.3},
    )
    prompt = ChatPromptTemplate.from_messages(
        [
            ("system", "You answer questions about the expense report. Use the tools."),
            ("human", "{input}"),
            MessagesPlaceholder("agent_scratchpad"),
        ]
    )
    tools = [add, total_for]
    if output:
        scratchpad = RunnablePassthrough.assign(
            agent_scratchpad=lambda given: format_to_openai_tool_messages(given["intermediate_steps"])
        )
        offered = [*map(format_tool_to_openai_tool, tools), OUTPUT]
        bound = model.bind(tools=offered, tool_choice="required")
        agent = scratchpad | prompt | bound | parse
    else:
        agent = create_openai_tools_agent(model, tools, prompt)
    return AgentExecutor(agent=agent, tools=tools)


async def plain(agent: AgentExecutor, question: str) -> Any:
    """Return the answer of a run."""
    return (await agent.ainvoke({"input": question}))["output"]


async def stream(agent: AgentExecutor, question: str) -> Any:
    """Return the answer of a run whose model requests stream."""
    answer = None
    async for step in agent.astream({"input": question}):
        answer = step.get("output", answer)
    return answer


def agent() -> AgentExecutor:
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
    run = stream if options.mode == "stream" else plain
    agent = make_agent(options.json_output, options.mode == "stream")
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
