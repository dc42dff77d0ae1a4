"""The sample agent as an AutoGen 0.2 user writes it: what the adapter's requests are compared with.

    python conversable.py [--mode plain|stream] [--json-output] QUESTION
    python conversable.py --loop N QUESTION    N runs in one process; prints CPU and wall milliseconds per run as JSON

OPENAI_BASE_URL, OPENAI_API_KEY and AGENTFORGE_MODEL name the endpoint.
"""

import argparse
import json
import os
import statistics
import time
from typing import Any, Dict, Literal, Tuple

import autogen.oai.client
from autogen import ConversableAgent, UserProxyAgent, register_function

# When it streams, AutoGen 0.2 counts tokens with files that it loads from the network: here there is none.
autogen.oai.client.count_token = lambda messages, model: 0

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


def make_agents(output: bool, stream: bool) -> Tuple[UserProxyAgent, ConversableAgent]:
    """Return who asks and executes, and who answers."""
    config: Dict[str, Any] = {
        "config_list": [{"model": os.environ.get("AGENTFORGE_MODEL", "scripted"), "price": [0, 0]}],
        "cache_seed": None,
        "temperature": 0.2,
        "max_tokens": 300,
        "top_p": 0.9,
        "stop": ["END"],
        "seed": 7,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.3,
    }
    if stream:
        config["stream"] = True
    if output:
        config["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": OUTPUT}}
    assistant = ConversableAgent(
        "expenses",
        system_message="You answer questions about the expense report. Use the tools.",
        llm_config=config,
        human_input_mode="NEVER",
    )
    user = UserProxyAgent(
        "user",
        human_input_mode="NEVER",
        code_execution_config=False,
        is_termination_msg=lambda message: not message.get("tool_calls"),
    )
    for tool in (add, total_for):
        register_function(tool, caller=assistant, executor=user, description=str(tool.__doc__))
    return user, assistant


def ask(agents: Tuple[UserProxyAgent, ConversableAgent], question: str) -> str:
    """Return the answer."""
    user, assistant = agents
    return str(user.initiate_chat(assistant, message=question, silent=True).chat_history[-1]["content"])


def agent() -> Tuple[UserProxyAgent, ConversableAgent]:
    """Return the chat as an entry point names it."""
    return make_agents(False, False)


def main() -> None:
    """Run the agent as the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("question")
    parser.add_argument("--mode", choices=("plain", "stream"), default="plain")
    parser.add_argument("--json-output", action="store_true")
    parser.add_argument("--loop", type=int, default=0)
    options = parser.parse_args()
    agents = make_agents(options.json_output, options.mode == "stream")
    answer = ask(agents, options.question)
    if not options.loop:
        print(answer)
        return
    walls = []  # the first run, which pays for lazy imports and connections, does not count
    cpu = time.process_time()
    for _ in range(options.loop):
        start = time.perf_counter()
        ask(agents, options.question)
        walls.append(time.perf_counter() - start)
    cpu = time.process_time() - cpu
    figures = {"cpu_ms": 1000 * cpu / options.loop, "wall_ms": 1000 * statistics.median(walls)}
    print(json.dumps({"runs": options.loop, **{name: round(value, 3) for name, value in figures.items()}}))


if __name__ == "__main__":
    main()
