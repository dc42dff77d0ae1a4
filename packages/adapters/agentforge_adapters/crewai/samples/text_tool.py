"""The sample agent as a user of CrewAI 0.1 writes it: what the adapter's requests are compared with.

    python native.py [--mode plain|stream] [--json-output] QUESTION
    python native.py --loop N QUESTION        N runs in one process; prints CPU and wall milliseconds per run as JSON

OPENAI_BASE_URL, OPENAI_API_KEY and AGENTFORGE_MODEL name the endpoint.
"""

import argparse
import json
import os
import statistics
import time
from typing import Any

from crewai import Agent, Crew, Task
from langchain.tools import Tool
from langchain_openai import ChatOpenAI

TOTALS = {"travel": 412.5, "meals": 96.0, "hotel": 730.0}
INPUT = {"question": "How much was it?"}
"""What `agent` is run with."""


def add(text: str) -> str:
    """Add two whole numbers."""
    given = json.loads(text)
    return str(given["a"] + given["b"])


def total_for(text: str) -> str:
    """Return the sum of the expenses of one category."""
    return str(TOTALS[json.loads(text)["category"]])


ADD = """Add two whole numbers. The input is a JSON object: \
{"properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a", "b"]}"""
TOTAL_FOR = """Return the sum of the expenses of one category. The input is a JSON object: \
{"properties": {"category": {"enum": ["travel", "meals", "hotel"], "type": "string"}}, "required": ["category"]}"""


def make_crew(question: str, stream: bool) -> Crew:
    """Return the crew; its client is made once with it."""
    # Base URL and key are those of the environment. There is no place for stops of one's own beside CrewAI's.
    llm = ChatOpenAI(
        model=os.environ.get("AGENTFORGE_MODEL", "scripted"),
        temperature=0.2,
        max_tokens=300,
        streaming=stream,
        model_kwargs={"top_p": 0.9, "seed": 7, "presence_penalty": 0.1, "frequency_penalty": 0.3},
    )
    agent = Agent(
        role="expenses",
        goal="Give a correct and complete answer.",
        backstory="You answer questions about the expense report. Use the tools.",
        tools=[
            Tool(name="add", description=ADD, func=add),
            Tool(name="total_for", description=TOTAL_FOR, func=total_for),
        ],
        llm=llm,
        allow_delegation=False,
        memory=False,
    )
    task = Task(description=question, agent=agent)
    return Crew(agents=[agent], tasks=[task])


def run(question: str, stream: bool) -> Any:
    """Return the answer of one run. A crew keeps what its tools said: each run has its own."""
    return make_crew(question, stream).kickoff()


def agent() -> Crew:
    """Return the crew as an entry point names it. It takes no inputs: its task is the question."""
    return make_crew(INPUT["question"], False)


def main() -> None:
    """Run the agent as the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("question")
    parser.add_argument("--mode", choices=("plain", "stream"), default="plain")
    parser.add_argument("--json-output", action="store_true")
    parser.add_argument("--loop", type=int, default=0)
    options = parser.parse_args()
    if not options.loop:
        print(run(options.question, options.mode == "stream"))
        return
    run(options.question, options.mode == "stream")  # the first run pays for lazy imports
    walls = []
    cpu = time.process_time()
    for _ in range(options.loop):
        start = time.perf_counter()
        run(options.question, options.mode == "stream")
        walls.append(time.perf_counter() - start)
    cpu = time.process_time() - cpu
    figures = {"cpu_ms": 1000 * cpu / options.loop, "wall_ms": 1000 * statistics.median(walls)}
    print(json.dumps({"runs": options.loop, **{name: round(value, 3) for name, value in figures.items()}}))


if __name__ == "__main__":
    main()
