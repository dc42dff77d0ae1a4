"""The embedded model: a tiny language model that needs no key, in a process of its own.

The host holds an `EmbeddedModel` and learns from it where to send requests. The process behind it
(`python -m agentforge.gateway.embedded`) runs llama.cpp and speaks OpenAI's format on a Unix socket that only its owner
can open. Importing this package imports neither the engine nor the server.
"""

from agentforge.gateway.embedded.model import EmbeddedModel
from agentforge.gateway.embedded.settings import EmbeddedSettings, FirstStep

__all__ = ["EmbeddedModel", "EmbeddedSettings", "FirstStep"]
