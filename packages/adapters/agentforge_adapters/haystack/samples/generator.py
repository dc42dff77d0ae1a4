"""The sample agent, without its tools, as a user of Haystack 2.0 writes it.

The adapter's requests are compared with those of this program.

    python generator.py [--mode plain|stream] [--json-output] QUESTION
    python generator.py --loop N QUESTION        N runs in one process; prints CPU and wall milliseconds per run as JSON

OPENAI_BASE_URL, OPENAI_API_KEY and AGENTFORGE_MODEL name the endpoint.
"""

import argparse
import json
import os
import statistics
import time
from typing import Any

from haystack import Pipeline
from haystack.components.generators import OpenAIGenerator
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage

INPUT = {"llm": {"prompt": "How much was it?"}}
"""What `agent` is run with."""
OUTPUT = {
    "type": "object",
    "properties": {"total": {"type": "number", "description": "The sum in euros."}},
    "required": ["total"],
}


def make_pipeline(streams: bool, output: bool) -> Pipeline:
    """Return the pipeline; its client is made once with it."""
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

    def show(chunk: Any) -> None:
        pass

    pipeline = Pipeline()
    pipeline.add_component(
        "llm",
        OpenAIChatGenerator(
            model=os.environ.get("AGENTFORGE_MODEL", "scripted"),
            generation_kwargs=settings,
            streaming_callback=show if streams else None,
        ),
    )
    return pipeline


def run(pipeline: Pipeline, question: str) -> Any:
    """Return the answer of a run."""
    messages = [
        ChatMessage.from_system("You answer questions about the expense report. Use the tools."),
        ChatMessage.from_user(question),
    ]
    return pipeline.run({"llm": {"messages": messages}})["llm"]["replies"][0].content


def loop(pipeline: Pipeline, question: str, count: int) -> None:
    """Print what a run costs; the first one, which pays for lazy imports and connections, does not count."""
    run(pipeline, question)
    walls = []
    cpu = time.process_time()
    for _ in range(count):
        start = time.perf_counter()
        run(pipeline, question)
        walls.append(time.perf_counter() - start)
    cpu = time.process_time() - cpu
    figures = {"cpu_ms": 1000 * cpu / count, "wall_ms": 1000 * statistics.median(walls)}
    print(json.dumps({"runs": count, **{name: round(value, 3) for name, value in figures.items()}}))


def agent() -> Pipeline:
    """Return a pipeline as an entry point names it: one that takes text."""
    pipeline = Pipeline()
    pipeline.add_component("llm", OpenAIGenerator(model=os.environ.get("AGENTFORGE_MODEL", "scripted")))
    return pipeline


def main() -> None:
    """Run the pipeline as the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("question")
    parser.add_argument("--mode", choices=("plain", "stream"), default="plain")
    parser.add_argument("--json-output", action="store_true")
    parser.add_argument("--loop", type=int, default=0)
    options = parser.parse_args()
    pipeline = make_pipeline(options.mode == "stream", options.json_output)
    if options.loop:
        loop(pipeline, options.question, options.loop)
        return
    print(run(pipeline, options.question))


if __name__ == "__main__":
    main()
