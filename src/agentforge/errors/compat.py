"""Failures of the conformance suite (AF34x): it can't be run here, or did not come to its end."""

from agentforge.errors.tree import AgentForgeError

__all__ = ["SuiteBroken", "SuiteUnavailable"]


class SuiteUnavailable(AgentForgeError):
    """The conformance suite needs packages that are not installed beside AgentForge."""

    code = "AF340"
    default_hint = (
        "Install them into AgentForge's own environment: `pip install 'inferloop-agentforge-conformance[suites]'`."
    )


class SuiteBroken(AgentForgeError):
    """The process of the conformance suite ended, or said nothing any more, before all tests were through."""

    code = "AF341"
    default_hint = "Try this release alone: `agentforge compat RELEASE`. The framework may have killed the process."
