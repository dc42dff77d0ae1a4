"""Why requirements can't be satisfied together, in plain words: who wants what, read off uv's derivation."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from agentforge.errors.environments import ResolutionFailed

__all__ = ["Claim", "Story", "explained"]

_RANGE = r"(?:==|>=|<=|~=|!=|<|>)[^\s,;]+"
_TERM = rf"[A-Za-z0-9][\w.-]*(?:\[[^\]]*\])?(?:\{{[^}}]*\}})?(?:{_RANGE}(?:,{_RANGE})*)?"
_TERMS = rf"(?>{_TERM})(?: and (?>{_TERM})(?! (?:depends? on|can(?:not)? be|was|is|are)\b))*"
_WANTS = re.compile(rf"(?P<who>(?:all versions of )?{_TERM}) depends? on (?P<what>{_TERMS})")
_ASKED = re.compile(rf"(?<!conclude that )you require (?P<what>{_TERMS})")
_MISSING = (
    re.compile(rf"there (?:is|are) no versions? of (?P<what>{_TERM})"),
    re.compile(rf"(?P<what>{_TERM}) was not found in the package registry"),
)
_ONLY = re.compile(rf"only (?P<what>{_TERM}) (?:is|are) available")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Claim:
    """One party's wish: a package that wants another one in some versions, or whoever asked for it."""

    package: str
    wants: str
    """As a requirement: `openai<2`."""
    by: str
    """The package that depends on it (`crewai==0.86.0`); empty: it was asked for directly."""
    because: str = ""
    """Who asked for that: `requirements` of the agent, the framework itself, the project."""

    @property
    def text(self) -> str:
        """The wish in words."""
        return f"{self.whose} wants `{self.wants}`"

    @property
    def whose(self) -> str:
        """Who wishes it, in words."""
        whose = f"`{self.by}`" + (f" ({self.because})" if self.because else "") if self.by else self.because
        return whose or "a requirement"


@dataclass(frozen=True, slots=True)
class Story:
    """What is known of the requirements: who brought which line."""

    what: str
    """What was to be resolved: `langchain==1.4.7`."""
    roles: Mapping[str, str]
    """Who brought a line, by the line; any other one is `default`."""
    requirements: Sequence[str]
    bounds: Sequence[str] = ()
    as_of: datetime | None = None
    default: str = ""


def explained(text: str, story: Story) -> ResolutionFailed:
    """Return the error for what uv says of requirements that exclude each other.

    `details` has `conflicts` (package, and who wants what), `missing` (what the index has in no version), and uv's
    own words.
    """
    words = " ".join(text.split())
    claims = list(dict.fromkeys(_claims(words, story)))
    conflicts = _conflicts(claims)
    missing = [] if conflicts else list(dict.fromkeys([*_missing(words), *_beyond(words, claims)]))
    parts = [f"no version of `{name}` suits all: {_told(those)}" for name, those in conflicts]
    parts += [_absent(wanted, claims, story) for wanted in missing]
    details: dict[str, Any] = {
        "conflicts": [{"package": name, "wanted": [asdict(each) for each in those]} for name, those in conflicts],
        "missing": missing,
        "explanation": text,
    }
    if not parts:
        return ResolutionFailed(f"Resolving {story.what} failed: {text}", **details)
    message = f"Resolving {story.what} failed: {'. '.join(parts[:_SHOWN])}"
    return ResolutionFailed(message, hint=_hint(claims, story), **details)


def _claims(words: str, story: Story) -> Iterator[Claim]:
    for found in _WANTS.finditer(words):
        by = found["who"].removeprefix("all versions of ")
        for wants, name in _terms(found["what"]):
            if bound := _bound(wants, story):
                yield Claim(name, wants, "", story.roles.get(bound, story.default))
            else:
                yield Claim(name, wants, by, _asked(by, story) or "")
    for found in _ASKED.finditer(words):
        for wants, name in _terms(found["what"]):
            bound = _bound(wants, story)
            role = story.roles.get(bound, story.default) if bound else _asked(wants, story)
            yield Claim(name, wants, "", story.default if role is None else role)


def _terms(text: str) -> Iterator[tuple[str, str]]:
    for term in text.split(" and "):
        term = term.rstrip(".")
        if name := _name(term):
            yield term, name


def _asked(term: str, story: Story) -> str | None:
    """Return who brought the requirement that a term is, or else one of its package; None if nobody did."""
    wanted, same = _requirement(re.sub(r"\{[^}]*\}", "", term)), None
    for line in story.requirements:
        found = _requirement(line)
        if found is None or wanted is None or canonicalize_name(found.name) != canonicalize_name(wanted.name):
            continue
        role = story.roles.get(line, story.default)
        if found.specifier == wanted.specifier:
            return role
        same = same or role
    return same


def _requirement(line: str) -> Requirement | None:
    try:
        return Requirement(line)
    except InvalidRequirement:
        return None


def _requirement_name(line: str) -> str:
    found = _requirement(line)
    return canonicalize_name(found.name) if found is not None else ""


def _name(term: str) -> str:
    found = _NAME.match(term)
    name = canonicalize_name(found[0]) if found else ""
    return "" if name in ("python", "all") else name


def _bound(wants: str, story: Story) -> str:
    """Return the bound that a term is, or is a part of: uv may tell the parts of `x>=1,<2` one by one."""
    term = _requirement(re.sub(r"\{[^}]*\}", "", wants))
    if term is None or not term.specifier:
        return ""
    for line in story.bounds:
        bound = _requirement(line)
        same = bound is not None and canonicalize_name(bound.name) == canonicalize_name(term.name)
        if bound is not None and same and set(term.specifier) <= set(bound.specifier):
            return line
    return ""


def _told(claims: Sequence[Claim]) -> str:
    if len({each.whose for each in claims}) == 1:
        return f"{claims[0].whose} wants both {' and '.join(f'`{each.wants}`' for each in claims)}"
    return "; ".join(each.text for each in claims)


def _conflicts(claims: Iterable[Claim]) -> list[tuple[str, list[Claim]]]:
    """Return the packages that are wanted in different versions: by different parties, or else by one itself."""
    by_package: dict[str, list[Claim]] = {}
    for claim in claims:
        if claim.wants.rstrip("*") != claim.package:
            by_package.setdefault(claim.package, []).append(claim)
    several = [(package, those) for package, those in by_package.items() if len({each.wants for each in those}) > 1]
    between = [each for each in several if len({(claim.by, claim.because) for claim in each[1]}) > 1]
    return between or [each for each in several if not any(claim.by for claim in each[1])]


def _missing(words: str) -> Iterator[str]:
    for pattern in _MISSING:
        yield from (found["what"].rstrip(".") for found in pattern.finditer(words))


def _beyond(words: str, claims: Sequence[Claim]) -> Iterator[str]:
    """Yield what is wanted of packages of which the index has other versions only."""
    for found in _ONLY.finditer(words):
        yield from (each.wants for each in claims if each.package == _name(found["what"]))


def _absent(wanted: str, claims: Sequence[Claim], story: Story) -> str:
    name = _name(wanted)
    whose = next((each for each in claims if each.package == name), None)
    then = f" up to {story.as_of:%Y-%m-%d}, the time that {story.what} is resolved as of" if story.as_of else ""
    said = f"the index has no `{wanted}`{then}"
    if whose is None:
        return said
    return f"{said}; " + (f"`{whose.by}` wants it" if whose.by else f"it comes from {whose.because or 'a requirement'}")


def _hint(claims: Sequence[Claim], story: Story) -> str:
    own = {line: role for line, role in story.roles.items() if role}
    named = {each.package for each in claims} | {_name(each.by) for each in claims if each.by}
    ours = [line for line in own if _requirement_name(line) in named or line in story.bounds]
    if ours:
        lines = ", ".join(f"`{line}` ({own[line]})" for line in sorted(ours))
        return f"Loosen or remove {lines}, or ask for another release."
    return ResolutionFailed.default_hint
