"""The engine: runs, attempts, journal, limits, and the wiring of everything below it."""

from agentforge.engine.engine import Engine
from agentforge.engine.preparing import Submission
from agentforge.engine.results import event_json, result_json, summary_json

__all__ = ["Engine", "Submission", "event_json", "result_json", "summary_json"]
