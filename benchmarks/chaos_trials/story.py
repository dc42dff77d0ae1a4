"""What runs: the agent with its two tools, and for each run a story of 5 model calls and 5 tool calls.

    model 1 → tool 1, model 2 → tools 2 and 3 in parallel, model 3 → tool 4, model 4 → tool 5, model 5 → the answer

Ten effects. The tools of a story take turns: `note` may be repeated, `book` may not; which of them begins differs from
story to story, so that half of all tool calls are declared idempotent. The answer holds all five results.
"""

import hashlib
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agentforge_conformance.scripted_model import CalledTool, Step

__all__ = ["AGENT", "ASKED", "EFFECTS", "MODEL_STEPS", "TOOL_STEPS", "Story", "value_of", "write_agent"]

AGENT = "ledger"
MODEL_STEPS = 5
TOOL_STEPS = 5
EFFECTS = MODEL_STEPS + TOOL_STEPS
ASKED: Mapping[int, tuple[int, ...]] = {1: (1,), 2: (2, 3), 3: (4,), 4: (5,), 5: ()}
"""The tool steps that each model step asks for."""
_AGENT_FILE = {
    "name": AGENT,
    "instructions": "Do what the user's order says, step by step. Use the tools.",
    "tools": [{"python": "tools.py:note", "idempotent": True}, {"python": "tools.py:book"}],
}
_TOOLS = '''\
"""Two tools that leave one line for each call: durable before they return, so that no call can be hidden."""

import hashlib
import json
import os
import random
import time

LOG = {log!r}


def note(run: str, step: int, idempotency_key: str) -> str:
    """Note a step of an order."""
    return done("note", run, step, idempotency_key)


def book(run: str, step: int, idempotency_key: str) -> str:
    """Book a step of an order."""
    return done("book", run, step, idempotency_key)


def done(tool, run, step, key):
    time.sleep(random.uniform(0, 0.012))
    line = {{"run": run, "step": step, "idempotency_key": key, "pid": os.getpid(), "tool": tool, "at": time.time()}}
    descriptor = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, json.dumps(line).encode() + b"\\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    time.sleep(random.uniform(0.002, 0.025))
    return hashlib.sha256(f"{{tool}}:{{run}}:{{step}}".encode()).hexdigest()[:12]
'''


def write_agent(root: Path, log: Path) -> None:
    """Write the agent's folder into a project; its tools write to `log`."""
    folder = root / AGENT
    folder.mkdir()
    file = {**_AGENT_FILE, "permissions": {"write": [str(log.parent)]}}
    (folder / "agent.yaml").write_text(json.dumps(file))  # JSON is YAML
    (folder / "tools.py").write_text(_TOOLS.format(log=str(log)))


def value_of(tool: str, run: str, step: int) -> str:
    """Return what a tool returns for these arguments."""
    return hashlib.sha256(f"{tool}:{run}:{step}".encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Story:
    """What one run is to do."""

    label: str
    """Its input, in all its requests and in the arguments of all its tool calls."""
    number: int
    delays_s: tuple[float, ...] = field(default=(0.0,) * MODEL_STEPS)
    """How long the model takes for each of its answers."""

    @classmethod
    def make(cls, number: int, rng: random.Random) -> "Story":
        """Return a story with random delays of a few milliseconds."""
        return cls(f"order-{number:06}", number, tuple(rng.uniform(0.015, 0.04) for _ in range(MODEL_STEPS)))

    def tool(self, step: int) -> str:
        """Return the tool that a step calls."""
        return "note" if (step + self.number) % 2 else "book"

    def value(self, step: int) -> str:
        """Return the result of a tool step."""
        return value_of(self.tool(step), self.label, step)

    @property
    def output(self) -> str:
        """The only right output."""
        return " ".join([f"{self.label}:", *(self.value(step) for step in range(1, TOOL_STEPS + 1))])

    def script(self) -> list[Step]:
        """Return what the model answers, by the number of its answers in the conversation."""
        steps = []
        for (_, asked), delay_s in zip(ASKED.items(), self.delays_s, strict=True):
            calls = [CalledTool(self.tool(step), {"run": self.label, "step": step}) for step in asked]
            text = None if calls else f"{self.label}: {{tools}}"
            steps.append(Step(text=text, calls=calls, delay_s=delay_s))
        return steps
