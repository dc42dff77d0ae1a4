"""The builds of one host, each made once for all who wait for it, and what runs say of them meanwhile."""

from agentforge.engine.adapters import AdapterStore
from agentforge.engine.check import EnvironmentCheck
from agentforge.engine.execution import Execution
from agentforge.engine.sharing import JoinedWork
from agentforge.environments import BuildProgress, Environment, EnvironmentRequest, Environments, Progress
from agentforge.frameworks import Release
from agentforge.sandbox import Level

__all__ = ["BuildLog", "Builds"]

_Key = tuple[str, str, str]


class Builds:
    """Builds what is missing, and knows what is there."""

    def __init__(self, environments: Environments, adapters: AdapterStore, level: Level = "standard") -> None:
        """`level` is the sandbox that an environment is checked in before it counts as built."""
        self._environments, self.adapters, self._level = environments, adapters, level
        self._under_way = JoinedWork[Environment, BuildProgress]()
        self._ready: dict[_Key, Environment] = {}

    async def ensure(
        self, request: EnvironmentRequest, release: Release | None, progress: Progress | None = None
    ) -> Environment:
        """Return the built environment; builds of the same one in this host are done once and shared."""
        key = _key(request)
        known = self._ready.get(key)
        if known is not None and known.python.exists():
            return known
        check = self._check(release)
        environment = await self._under_way.do(
            key, lambda tell: self._environments.ensure(request, tell, check), progress
        )
        self._ready[key] = environment
        return environment

    async def rebuild(
        self, request: EnvironmentRequest, release: Release | None, progress: Progress | None = None
    ) -> Environment:
        """Return the environment for a request, made anew beside the one that is there (`Environments.rebuild`)."""
        check = self._check(release)
        environment = await self._environments.rebuild(request, progress, check)
        self._ready[_key(request)] = environment
        return environment

    def forget(self, environment_id: str) -> None:
        """Look again for an environment the next time: it was removed."""
        self._ready = {key: found for key, found in self._ready.items() if found.id != environment_id}

    async def close(self) -> None:
        """Stop the builds under way; they leave nothing half-made."""
        await self._under_way.close()

    def _check(self, release: Release | None) -> EnvironmentCheck | None:
        return EnvironmentCheck(release, self.adapters, self._level) if release else None


class BuildLog:
    """Tells a run's watchers about a build that the run waits for: each stage once, packages in tenths."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._last: tuple[str, str, int] | None = None

    def __call__(self, progress: BuildProgress) -> None:
        tenth = progress.done * 10 // progress.total if progress.total else 0
        state = (progress.environment, progress.stage, tenth)
        if state == self._last or (progress.stage == "ready" and self._last is None):
            return
        self._last = state
        self._execution.feed.emit(
            "log.written",
            {
                "stream": "environment",
                "text": f"{progress.environment}: {progress.message or progress.stage}",
                "environment": progress.environment,
                "stage": progress.stage,
                "done": progress.done,
                "total": progress.total,
            },
        )


def _key(request: EnvironmentRequest) -> _Key:
    return request.name, request.lock.digest, request.python
