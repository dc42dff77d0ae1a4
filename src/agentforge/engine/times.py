"""How times are shown to users."""

from datetime import UTC, datetime

__all__ = ["iso"]


def iso(at: float) -> str:
    """Return epoch seconds as ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
