"""The fence around processes that run foreign code: what they may do, and who sees to it."""

from agentforge.sandbox.enclosing import Enclosed, Inmate, Sandbox
from agentforge.sandbox.fence import LEVELS, Fence, Level, Limits
from agentforge.sandbox.guard import Guard
from agentforge.sandbox.mechanisms import mechanisms
from agentforge.sandbox.probe import sandbox_for
from agentforge.sandbox.ward import Ward
from agentforge.sandbox.watch import Watch

__all__ = [
    "LEVELS",
    "Enclosed",
    "Fence",
    "Guard",
    "Inmate",
    "Level",
    "Limits",
    "Sandbox",
    "Ward",
    "Watch",
    "mechanisms",
    "sandbox_for",
]
