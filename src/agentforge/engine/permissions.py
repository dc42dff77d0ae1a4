"""What an agent's tools are permitted to do, found when its run is submitted or goes on.

What can't be granted is an error then, before anything is built or asked: AF611 to AF614.
"""

import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from agentforge.config import AgentDefinition, Project
from agentforge.errors.tools import CodeDenied, CodeUnfenced, PathRefused, SecretMissing
from agentforge.gateway import Secret
from agentforge.sandbox import Level

__all__ = ["Permitted", "only_described", "permitted"]

Key = Literal["read", "write"]
_SYSTEM = tuple(map(Path, ("/proc", "/sys", "/dev")))
"""Not files: what the kernel tells of, and hands out, in the host's own namespaces."""


@dataclass(frozen=True, slots=True)
class Permitted:
    """What the tools of one run may do; paths as they are once all links are followed."""

    reads: tuple[Path, ...] = ()
    writes: tuple[Path, ...] = ()
    hides: tuple[Path, ...] = ()
    """Folders in those that are nobody's to see."""
    network: tuple[str, ...] = ()
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    asks_for_code: bool = False
    """Whether a human has to allow each piece of code."""

    def variables(self) -> dict[str, str]:
        """Return the secrets in the clear: for the one line that gives them to a tool worker."""
        return {name: secret.reveal() for name, secret in self.secrets.items()}

    def require_unmoved(self) -> None:
        """Raise PathRefused if a path is gone, or leads elsewhere by a link that was put there since."""
        for path in (*self.reads, *self.writes):
            try:
                moved = path.resolve(strict=True) != path
            except (OSError, RuntimeError):
                moved = True
            if moved:
                text = f"`{path}`, which the agent's permissions name, is gone or was replaced by a link"
                raise PathRefused(text, hint="Put it back, or correct `permissions` and start the run again.")


def permitted(
    definition: AgentDefinition,
    project: Project,
    level: Level,
    variables: Mapping[str, str],
    private: Sequence[Path] = (),
) -> Permitted:
    """Return what the tools of an agent may do, at the level of its sandbox.

    `private` are folders that no tool gets, whatever the agent says; the project's state is one of them. `variables`
    are those of whoever starts the run. Raises CodeDenied, CodeUnfenced, PathRefused, SecretMissing.
    """
    wanted = definition.file.permissions
    _check_code(definition, level)
    paths = _Paths(definition, project, private)
    writes = tuple(paths.writes())
    reads = tuple(paths.reads())
    secrets = _secrets(definition, variables)
    return Permitted(
        reads=reads,
        writes=writes,
        hides=tuple(paths.hidden((*reads, *writes))),
        network=wanted.network,
        secrets=secrets,
        asks_for_code=wanted.code == "ask",
    )


def only_described(definition: AgentDefinition, variables: Mapping[str, str]) -> Permitted:
    """Return what the tools of an offline run get: none is called, but their files are imported to describe them."""
    names = definition.file.permissions.secrets
    return Permitted(secrets={name: Secret(variables.get(name, "")) for name in names})


def _check_code(definition: AgentDefinition, level: Level) -> None:
    tool = next((each for each in definition.tools if each.code is not None), None)
    if tool is None:
        return
    name = f"the tool `{tool.known_as}` of the agent `{definition.name}` runs code that the model writes"
    if level == "none":
        raise CodeUnfenced(f"{name}, which is done in a sandbox only, and the run would have none")
    if definition.file.permissions.code == "deny":
        place = definition.place("permissions", "code")
        raise CodeDenied(f"`{place}`: {name}, and `permissions.code` is `deny`", key="permissions.code", place=place)


def _secrets(definition: AgentDefinition, variables: Mapping[str, str]) -> Mapping[str, Secret]:
    names = definition.file.permissions.secrets
    missing = [name for name in names if not variables.get(name)]
    if missing:
        listed = ", ".join(f"`{name}`" for name in missing)
        which = "a variable that is" if len(missing) == 1 else "variables that are"
        raise SecretMissing(
            f"`permissions.secrets` of the agent `{definition.name}` names {which} not set: {listed}",
            hint="Set it in the shell that you run `agentforge` from: "
            + "; ".join(f"`export {name}=...`" for name in missing)
            + ".",
            key="permissions.secrets",
            variables=missing,
        )
    return MappingProxyType({name: Secret(variables[name]) for name in names})


class _Paths:
    """The paths of an agent's permissions, each looked at as it is written there."""

    def __init__(self, definition: AgentDefinition, project: Project, private: Sequence[Path]) -> None:
        self._definition = definition
        self._root = project.root
        self._private = tuple(dict.fromkeys(path.resolve() for path in (project.state_dir, *private)))
        self._own = {project.root.resolve(): "the project's files"}
        folder = definition.base_dir.resolve()
        if not folder.is_relative_to(self._private[0]):  # else it is the copy that a run goes on with
            self._own[folder] = "the agent's own files"
        self._written = tuple(self._resolved("write", index) for index in range(len(self._texts("write"))))

    def writes(self) -> Iterator[Path]:
        """Yield the folders to write, without those that are in another one."""
        for index, path in enumerate(self._written):
            self._require_folder(index, path)
            self._require_fixed("write", index)
            if not any(path != each and path.is_relative_to(each) for each in self._written):
                yield path

    def reads(self) -> Iterator[Path]:
        """Yield the files and folders to read, without those that may be written anyway."""
        for index in range(len(self._texts("read"))):
            path = self._resolved("read", index)
            self._require_fixed("read", index)
            if not any(path.is_relative_to(each) for each in self._written):
                yield path

    def hidden(self, paths: Sequence[Path]) -> Iterator[Path]:
        """Yield the private folders that are in what the tools get."""
        inside = (each for each in self._private if any(each.is_relative_to(path) for path in paths))
        return (each for each in inside if each.is_dir())

    def _resolved(self, key: Key, index: int) -> Path:
        path = self._root / self._texts(key)[index]
        try:
            found = path.resolve(strict=True)
            mode = found.stat().st_mode
        except (OSError, RuntimeError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it can't be a path"
            hint = f"Make it, or correct the path; it starts from `{self._root}`."
            raise self._refused(key, index, f"can't be used: {reason}", hint) from None
        if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            raise self._refused(key, index, "is neither a file nor a folder", "Name files and folders.")
        if found == Path("/") or any(found.is_relative_to(each) for each in _SYSTEM):
            hint = "Name the folders that the tools need, one by one."
            raise self._refused(key, index, "is the system's", hint)
        for each in self._private:
            if found.is_relative_to(each):
                raise self._refused(key, index, f"is in `{each}`, which no tool gets", "Use folders of your own.")
        return found

    def _require_folder(self, index: int, path: Path) -> None:
        """Raise PathRefused for a file, and for a folder around what has to be named by itself."""
        if not path.is_dir():
            hint = "Name the folder that it is in."
            raise self._refused("write", index, "is a file; permissions to write are for folders", hint)
        for own, what in self._own.items():
            if own.is_relative_to(path) and own not in self._written:
                hint = f"Name a folder beside them; or, if the tools are to change them, name `{own}` too."
                raise self._refused("write", index, f"holds {what}, `{own}`", hint)

    def _require_fixed(self, key: Key, index: int) -> None:
        """Raise PathRefused if what the path means is up to the tools: they could make it mean anything."""
        for link in _links(self._root / self._texts(key)[index]):
            if any(link.parent.is_relative_to(each) for each in self._written):
                hint = "Name what it leads to, or keep the link where the tools can't write."
                raise self._refused(key, index, f"goes by the link `{link}`, which the tools may change", hint)

    def _texts(self, key: Key) -> tuple[str, ...]:
        wanted = self._definition.file.permissions
        return wanted.read if key == "read" else wanted.write

    def _refused(self, key: Key, index: int, problem: str, hint: str) -> PathRefused:
        where = f"permissions.{key}[{index}]"
        place = self._definition.place("permissions", key, index)
        text = self._texts(key)[index]
        return PathRefused(f"`{place}`: `{where}` is `{text}`, which {problem}", hint=hint, key=where, place=place)


def _links(path: Path) -> Iterator[Path]:
    """Yield the symbolic links that a path, which exists, goes by; each one's folder as it really is."""
    here, waiting = Path("/"), list(reversed(path.absolute().parts[1:]))
    while waiting:
        part = waiting.pop()
        if part == "..":
            here = here.parent
        elif (here / part).is_symlink():
            yield here / part
            target = (here / part).readlink()
            here = Path("/") if target.is_absolute() else here
            waiting += reversed([each for each in target.parts if each != "/"])
        else:
            here = here / part
