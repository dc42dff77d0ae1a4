"""Tokens in an answer, in the words of either OpenAI format."""

from agentforge.gateway.types import Json, Usage

__all__ = ["usage_in"]


def usage_in(data: dict[str, Json]) -> Usage | None:
    """Return the usage of a chat completion, an embedding or a response; None if it holds none."""
    usage = data.get("usage")
    if not isinstance(usage, dict):
        return None
    return Usage(
        input_tokens=_count(usage, "prompt_tokens", "input_tokens"),
        output_tokens=_count(usage, "completion_tokens", "output_tokens"),
        cached_input_tokens=_detail(usage, "cached_tokens", "prompt_tokens_details", "input_tokens_details"),
        reasoning_tokens=_detail(usage, "reasoning_tokens", "completion_tokens_details", "output_tokens_details"),
    )


def _count(usage: dict[str, Json], *names: str) -> int:
    return next((n for name in names if isinstance(n := usage.get(name), int)), 0)


def _detail(usage: dict[str, Json], name: str, *groups: str) -> int:
    found = (group for key in groups if isinstance(group := usage.get(key), dict))
    return next((_count(group, name) for group in found), 0)
