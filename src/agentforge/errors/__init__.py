"""Every failure that a user can see: a class with a code, the facts, and what to do about it.

Each layer keeps its own errors in a module of this package (`config`, `frameworks`, `environments`, ...);
the first digit of a code names the layer. Every code has a page `docs/errors/AFnnn.md`. Foreign exceptions are
translated into these at one border and keep their origin.
"""

from agentforge.errors.tree import AgentForgeError, ErrorInfo, InternalError, Origin, UsageFault

__all__ = ["AgentForgeError", "ErrorInfo", "InternalError", "Origin", "UsageFault"]
