"""Agent versions: what a run executes, fixed and kept when it is submitted, whatever is edited since."""

import asyncio
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from agentforge.config import AgentDefinition, snapshot
from agentforge.engine.placing import place_folder
from agentforge.engine.provision import Provisioned
from agentforge.environments import Lock
from agentforge.errors.runs import VersionUnusable
from agentforge.errors.store import BlobNotFound
from agentforge.store import AgentVersion, AgentVersionId, BlobId, Store
from agentforge.tools import Tool, Toolbox

__all__ = ["AgentVersions"]

_LOCK = ".agentforge/lock.txt"
"""Among a version's files, the text of its environment's lock; a folder that no agent has files in."""


class AgentVersions:
    """Makes versions and lays their files out below `folder`, read-only, one folder a version."""

    def __init__(self, store: Store, folder: Path, clock: Callable[[], float]) -> None:
        self._store = store
        self._folder = folder
        self._clock = clock
        self._known: dict[str, AgentVersion] = {}
        self._tools: dict[str, asyncio.Task[list[Tool]]] = {}

    async def make(self, definition: AgentDefinition, provisioned: Provisioned) -> AgentVersion:
        """Return the version of an agent on a release: the same content gives the same version."""
        taken = await asyncio.to_thread(snapshot, definition)
        spec = {
            "agent": definition.spec(),
            "framework": provisioned.release.framework.name,
            "release": provisioned.release.version,
            "lock": provisioned.lock.digest,
            "adapter": provisioned.release.framework.digest,
            "python": provisioned.request.python,
        }
        content = {"spec": spec, "files": taken.digest}
        version_id = hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()
        if version_id not in self._known:
            files = {**taken.files, _LOCK: provisioned.lock.text.encode()}
            self._known[version_id] = await self._keep(AgentVersionId(version_id), definition.name, spec, files)
        return self._known[version_id]

    async def folder(self, version: AgentVersion) -> Path:
        """Return the folder with a version's files, written from the store if it is not there."""
        target = self._folder / version.id[:32]
        if not target.is_dir():
            named = {name: blob for name, blob in version.files.items() if name != _LOCK}
            files = {name: await self._store.get_blob(blob) for name, blob in named.items()}
            await asyncio.to_thread(place_folder, target, functools.partial(_lay_out, files))
        return target

    async def lock(self, version: AgentVersion) -> Lock:
        """Return the lock of the environment that a version runs in. Raises VersionUnusable."""
        try:
            text = (await self._store.get_blob(version.files[_LOCK])).decode()
        except (KeyError, BlobNotFound) as error:
            raise VersionUnusable(f"the lock of the agent version `{version.id[:12]}` is gone: {error}") from None
        requirements = tuple(version.spec["agent"].get("requirements", ()))
        return Lock(text, requirements, str(version.spec.get("python", "")))

    async def tools(self, version: AgentVersion, toolbox: Toolbox, declared: Sequence[Tool]) -> list[Tool]:
        """Return the version's tools with what their functions say of themselves; asked for once."""
        task = self._tools.get(version.id)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._tools[version.id] = asyncio.create_task(toolbox.describe(declared))
        return await asyncio.shield(task)

    async def _keep(
        self, version_id: AgentVersionId, name: str, spec: Mapping[str, object], files: Mapping[str, bytes]
    ) -> AgentVersion:
        blobs: dict[str, BlobId] = {}
        for path, data in files.items():
            blobs[path] = await self._store.put_blob(data)
        version = AgentVersion(id=version_id, name=name, spec=dict(spec), files=blobs, created_at=self._clock())
        return await self._store.put_agent_version(version)


def _lay_out(files: Mapping[str, bytes], folder: Path) -> None:
    for name, data in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        place.chmod(0o444)
