"""What becomes of environments and releases in time: tried with the conformance suite, updated, compared, kept well.

Works with a host's engine; the API calls it.
"""

from agentforge.lifecycle.comparing import compared, side_of
from agentforge.lifecycle.compat import Compat, CompatProgress
from agentforge.lifecycle.generations import Generation, Generations
from agentforge.lifecycle.health import Condition, Health
from agentforge.lifecycle.updating import RUNS, Report, Update, Updating

__all__ = [
    "RUNS",
    "Compat",
    "CompatProgress",
    "Condition",
    "Generation",
    "Generations",
    "Health",
    "Report",
    "Update",
    "Updating",
    "compared",
    "side_of",
]
