"""The sample agent as a CrewAI user writes it: what the adapter's requests are compared with.

    python native.py [--mode plain|stream] [--json-output] QUESTION
    python native.py --loop N QUESTION        N runs in one process; prints CPU and wall milliseconds per run as JSON

OPENAI_BASE_URL, OPENAI_API_KEY and AGENTFORGE_MODEL name the endpoint.
"""

import argparse
import json
import os
import statistics
import time
from typing import Any, Literal

os.environ.setdefault("CREWAI_DISABLE_TELEMETRY", "true")
os.environ.setdefault("CREWAI_TRACING_ENABLED", "false")
os.environ.setdefault("OTEL_SDK_DISABLED", "true")

from crewai import LLM, Agent, Crew, Task
from crewai.tools import tool
from pydantic import BaseModel, Field

TOTALS = {"travel": 412.5, "meals": 96.0, "hotel": 730.0}
INPUT = {"question": "How much was it?"}
"""What `agent` is run with."""


class Answer(BaseModel, extra="forbid"):  # noqa: D101 (its docstring would be part of the prompt)
    total: float = Field(description="The sum in euros.")


@tool
def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b


@tool
def total_for(category: Literal["travel", "meals", "hotel"]) -> float:
    """Return the sum of the expenses of one category."""
    return TOTALS[category]


def make_crew(output: bool, stream: bool) -> Crew:
    """Return the crew; its client is made once with it."""
    llm = LLM(
        model=os.environ.get("AGENTFORGE_MODEL", "scripted"),
        provider="openai",
        base_url=os.environ["OPENAI_BASE_URL"],
        api_key=os.environ["OPENAI_API_KEY"],
        temperature=0.2,
        max_tokens=300,
        top_p=0.9,
        seed=7,
        presence_penalty=0.1,
        frequency_penalty=0.3,
        additional_params={"stop": ["END"]},  # the provider does not send `LLM(stop=...)`
    )
    agent = Agent(
        role="expenses",
        goal="Give a correct and complete answer.",
        backstory="You answer questions about the expense report. Use the tools.",
        tools=[add, total_for],
        llm=llm,
    )
    task = Task(
        description="{question}",
        expected_output="The answer.",
        agent=agent,
        output_pydantic=Answer if output else None,
    )
    return Crew(agents=[agent], tasks=[task], stream=stream)


def run(crew: Crew, question: str) -> Any:
    """Return the answer of one run."""
    output = crew.kickoff(inputs={"question": question})
    if crew.stream:
        for _ in output:
            pass
        output = output.result
    return output.raw if output.pydantic is None else output.pydantic.model_dump_json()


def agent() -> Crew:
    """Return the crew as an entry point names it."""
    return make_crew(False, False)


def main() -> None:
    """Run the agent as the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("question")
    parser.add_argument("--mode", choices=("plain", "stream"), default="plain")
    parser.add_argument("--json-output", action="store_true")
    parser.add_argument("--loop", type=int, default=0)
    options = parser.parse_args()
    crew = make_crew(options.json_output, options.mode == "stream")
    if not options.loop:
        print(run(crew, options.question))
        return
    run(crew, options.question)  # the first run pays for lazy imports
    walls = []
    cpu = time.process_time()
    for _ in range(options.loop):
        start = time.perf_counter()
        run(crew, options.question)
        walls.append(time.perf_counter() - start)
    cpu = time.process_time() - cpu
    figures = {"cpu_ms": 1000 * cpu / options.loop, "wall_ms": 1000 * statistics.median(walls)}
    print(json.dumps({"runs": options.loop, **{name: round(value, 3) for name, value in figures.items()}}))


if __name__ == "__main__":
    main()
