"""Whether a release can do what an agent needs, as far as its manifest rules it out: told before anything is built."""

from collections.abc import Mapping, Sequence

from agentforge.errors.frameworks import CapabilityAbsent
from agentforge.frameworks.release import Release

__all__ = ["require_able"]


def require_able(release: Release, needed: Mapping[str, str], tested: Sequence[Release]) -> None:
    """Refuse a release that has not what is needed: capabilities by name, with what says so of the agent.

    Only what the manifest names as `absent` is refused. `tested` are the framework's releases, newest first: the
    hint names one that has it all. Raises CapabilityAbsent.
    """
    missing = [name for name in needed if _is_absent(release, name)]
    if not missing:
        return
    name = missing[0]
    note = release.traits.capability(name).note
    able = next((each for each in tested if not any(_is_absent(each, every) for every in needed)), None)
    raise CapabilityAbsent(
        f"{needed[name]}, and {release.framework.title} {release.version} can't do that (`{name}` is absent)"
        + (f": {note}" if note else ""),
        hint=f"Take a release that can: `{able.reference}`. " + _HINT if able is not None else _HINT,
        framework=release.framework.name,
        release=release.version,
        capability=name,
    )


_HINT = "`agentforge compat` and `agentforge framework search --with CAPABILITY` say which can."


def _is_absent(release: Release, capability: str) -> bool:
    declared = release.traits.capabilities.get(capability)
    return declared is not None and declared.level == "absent"
