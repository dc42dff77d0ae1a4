"""The gateway: every model call of every framework goes through here.

A worker hands over a listening socket (its door); frameworks talk plain HTTP to it with a run token as their key. The
gateway finds the run, asks the engine (`CallObserver`), attaches the real key, passes the request on byte for byte,
and gives the answer back once it is recorded.

A worker whose agent may reach the network hands over a second one (its gate): an HTTP proxy to the hosts that the
agent lists.
"""

from agentforge.gateway.canonical import request_hash
from agentforge.gateway.door import Door, DoorLimits
from agentforge.gateway.failures import failure_error
from agentforge.gateway.gate import Connection, ConnectionObserver, Gate, GateLimits
from agentforge.gateway.gateway import Gateway
from agentforge.gateway.pacing import most_connections
from agentforge.gateway.tokens import TOKEN_PREFIX
from agentforge.gateway.tunnel import EndReason
from agentforge.gateway.types import (
    REDACTED,
    SHORTEST_REDACTED,
    CallObserver,
    EmbeddedModel,
    FailureKind,
    Grant,
    ModelCall,
    ModelFailure,
    ModelResponse,
    Refused,
    Secret,
    Timeouts,
    Upstream,
    UpstreamKind,
    Usage,
)

__all__ = [
    "REDACTED",
    "SHORTEST_REDACTED",
    "TOKEN_PREFIX",
    "CallObserver",
    "Connection",
    "ConnectionObserver",
    "Door",
    "DoorLimits",
    "EmbeddedModel",
    "EndReason",
    "FailureKind",
    "Gate",
    "GateLimits",
    "Gateway",
    "Grant",
    "ModelCall",
    "ModelFailure",
    "ModelResponse",
    "Refused",
    "Secret",
    "Timeouts",
    "Upstream",
    "UpstreamKind",
    "Usage",
    "failure_error",
    "most_connections",
    "request_hash",
]
