"""The blocking face of the client: each call runs the async one on a loop in a thread of its own."""

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from pathlib import Path

    from agentforge.api.client import Forge, RunHandle
    from agentforge.api.result import RunEvent, RunResult

__all__ = ["SyncForge", "SyncRunHandle"]

T = TypeVar("T")


class _Bridge:
    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="agentforge-client", daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        async def following() -> T:
            return await anext(items)

        while True:
            try:
                yield self.call(following())
            except StopAsyncIteration:
                return

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class SyncForge:
    """`Forge` with blocking methods. Made by `Forge.sync()`; use it as a context manager."""

    def __init__(self, forge: "Forge") -> None:
        self._forge = forge
        self._bridge: _Bridge

    def __enter__(self) -> Self:
        self._bridge = _Bridge()
        try:
            self._bridge.call(self._forge.__aenter__())
        except BaseException:
            self._bridge.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._bridge.call(self._forge.__aexit__(kind, error, trace))
        finally:
            self._bridge.close()

    def run(self, agent: Any, input: Any = "", **options: Any) -> "RunResult":
        """Run an agent and return how it ended; see `Forge.run`."""
        return self._bridge.call(self._forge.run(agent, input, **options))

    def submit(self, agent: Any, input: Any = "", **options: Any) -> "SyncRunHandle":
        """Start a run and return a handle to it; see `Forge.submit`."""
        return SyncRunHandle(self._bridge, self._bridge.call(self._forge.submit(agent, input, **options)))

    def attach(self, run_id: str) -> "SyncRunHandle":
        """Return a handle to a run that was started elsewhere."""
        return SyncRunHandle(self._bridge, self._forge.attach(run_id))

    def resume_all(self) -> "list[SyncRunHandle]":
        """Have the host go on with the runs that an earlier one left; see `Forge.resume_all`."""
        return [SyncRunHandle(self._bridge, handle) for handle in self._bridge.call(self._forge.resume_all())]

    def import_run(self, path: "str | Path") -> "SyncRunHandle":
        """Take a run from a file that `export` wrote."""
        return SyncRunHandle(self._bridge, self._bridge.call(self._forge.import_run(path)))

    def threads(self) -> list[dict[str, Any]]:
        """Return the project's threads, the one used last first."""
        return self._bridge.call(self._forge.threads())

    def thread(self, name: str) -> list[dict[str, Any]]:
        """Return a thread's messages in the neutral form, oldest first."""
        return self._bridge.call(self._forge.thread(name))

    def delete_thread(self, name: str) -> None:
        """Delete a thread; its runs stay."""
        self._bridge.call(self._forge.delete_thread(name))

    def frameworks(self) -> list[dict[str, Any]]:
        """Return the catalogue; see `Forge.frameworks`."""
        return self._bridge.call(self._forge.frameworks())

    def framework(self, reference: str) -> dict[str, Any]:
        """Return a framework, or what holds for one release of it."""
        return self._bridge.call(self._forge.framework(reference))

    def search_frameworks(self, text: str = "", **options: Any) -> list[dict[str, Any]]:
        """Return the frameworks that have all capabilities and all words; see `Forge.search_frameworks`."""
        return self._bridge.call(self._forge.search_frameworks(text, **options))

    def compare_frameworks(self, *references: str) -> dict[str, Any]:
        """Return releases side by side."""
        return self._bridge.call(self._forge.compare_frameworks(*references))

    def compat(self, *references: str, **options: Any) -> list[dict[str, Any]]:
        """Try releases with the conformance suite and return their reports; see `Forge.compat`."""
        return self._bridge.call(self._forge.compat(*references, **options))

    def remove_environment(self, environment: str) -> dict[str, Any]:
        """Delete a built environment that nobody needs; see `Forge.remove_environment`."""
        return self._bridge.call(self._forge.remove_environment(environment))

    def collect_environments(self, **options: Any) -> dict[str, Any]:
        """Delete what no project needs; see `Forge.collect_environments`."""
        return self._bridge.call(self._forge.collect_environments(**options))

    def export_environments(self, *references: str, file: "str | Path") -> dict[str, Any]:
        """Write a bundle of what references mean in this project; see `Forge.export_environments`."""
        return self._bridge.call(self._forge.export_environments(*references, file=file))

    def import_environments(self, file: "str | Path", *, build: bool = True) -> dict[str, Any]:
        """Take a bundle that `export_environments` wrote."""
        return self._bridge.call(self._forge.import_environments(file, build=build))

    def register_framework(self, path: "str | Path") -> list[str]:
        """Register a folder in the project's agentforge.toml, and return the names of the frameworks in it."""
        return self._bridge.call(self._forge.register_framework(path))

    def unregister_framework(self, name: str) -> None:
        """Take a registered folder out."""
        self._bridge.call(self._forge.unregister_framework(name))

    def environments(self) -> dict[str, list[dict[str, Any]]]:
        """Return the built environments, and the generations of the project's requests."""
        return self._bridge.call(self._forge.environments())

    def update_environments(self, *requests: str, **options: Any) -> list[dict[str, Any]]:
        """Update what the project's requests mean, and return a report of each; see `Forge.update_environments`."""
        return self._bridge.call(self._forge.update_environments(*requests, **options))

    def rollback_environment(self, request: str, to: int | None = None, **options: Any) -> dict[str, Any]:
        """Make an earlier generation the active one; see `Forge.rollback_environment`."""
        return self._bridge.call(self._forge.rollback_environment(request, to, **options))

    def diff_environments(self, before: str, after: str) -> dict[str, Any]:
        """Return how two environments differ; see `Forge.diff_environments`."""
        return self._bridge.call(self._forge.diff_environments(before, after))

    def health(self, *wanted: str, **options: Any) -> list[dict[str, Any]]:
        """Return how environments are; see `Forge.health`."""
        return self._bridge.call(self._forge.health(*wanted, **options))

    def probe(self, *wanted: str, **options: Any) -> list[dict[str, Any]]:
        """Probe environments, and return how they are then; see `Forge.probe`."""
        return self._bridge.call(self._forge.probe(*wanted, **options))

    def health_history(self, *wanted: str, limit: int = 100) -> list[dict[str, Any]]:
        """Return what probes found, the newest first."""
        return self._bridge.call(self._forge.health_history(*wanted, limit=limit))

    def health_changes(self, after: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield changes of environments' states as they come; see `Forge.health_changes`."""
        return self._bridge.iterate(self._forge.health_changes(after))


class SyncRunHandle:
    """`RunHandle` with blocking methods."""

    def __init__(self, bridge: _Bridge, handle: "RunHandle") -> None:
        self.run_id = handle.run_id
        self._bridge = bridge
        self._handle = handle

    def events(self, after: int = 0) -> "Iterator[RunEvent]":
        """Yield the run's events above `after` as they come, until its last one."""
        return self._bridge.iterate(self._handle.events(after))

    def result(self) -> "RunResult":
        """Wait for the run's end and return how it ended."""
        return self._bridge.call(self._handle.result())

    def status(self, wait_s: float = 0) -> "RunResult":
        """Return how the run stands."""
        return self._bridge.call(self._handle.status(wait_s))

    def cancel(self) -> "RunResult":
        """Cancel the run, wait for its end and return it."""
        return self._bridge.call(self._handle.cancel())

    def resume(self) -> "RunResult":
        """Have the run go on; returns at once. See `RunHandle.resume`."""
        return self._bridge.call(self._handle.resume())

    def answer(self, decision: str, value: Any = None, interrupt: str | None = None) -> "RunResult":
        """Answer what the run waits for; returns at once. See `RunHandle.answer`."""
        return self._bridge.call(self._handle.answer(decision, value, interrupt))

    def checkpoints(self, voided: bool = False) -> list[dict[str, Any]]:
        """Return the run's checkpoints, one an effect."""
        return self._bridge.call(self._handle.checkpoints(voided))

    def checkpoint(self, effect: int) -> dict[str, Any]:
        """Return one effect with its `request` and `response`."""
        return self._bridge.call(self._handle.checkpoint(effect))

    def rollback(self, at: int) -> "RunResult":
        """Take the run back to a checkpoint, where it waits for `resume`."""
        return self._bridge.call(self._handle.rollback(at))

    def fork(self, at: int | None = None, edit: Any = ..., input: Any = None, on: str | None = None) -> "SyncRunHandle":
        """Start a new run that shares this one's effects up to `at`; see `RunHandle.fork`."""
        return SyncRunHandle(self._bridge, self._bridge.call(self._handle.fork(at, edit, input, on)))

    def replay(self, agent: "str | Path | None" = None) -> dict[str, Any]:
        """Run once more from the journal alone; see `RunHandle.replay`."""
        return self._bridge.call(self._handle.replay(agent))

    def diff(self, other: "str | SyncRunHandle") -> dict[str, Any]:
        """Return where this run and another one differ, effect by effect."""
        run_id = other.run_id if isinstance(other, SyncRunHandle) else other
        return self._bridge.call(self._handle.diff(run_id))

    def export(self, path: "str | Path") -> None:
        """Write the run with its journal and agent into one file."""
        self._bridge.call(self._handle.export(path))
