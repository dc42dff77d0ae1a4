"""Writes the locks that are shipped with tested releases: a program for maintainers of adapters.

    python -m agentforge.environments.relock                     # every tested release of every shipped framework
    python -m agentforge.environments.relock langchain crewai==1.15.30 --folder my-adapters

To add a release, add its line to `tested` in the framework's framework.toml (version, as_of, lock), then run this.
The same line gives the same lock as long as the index keeps its files; commit the result after the tests passed.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from agentforge.environments.home import write_atomically
from agentforge.environments.interpreters import Interpreters, python_floor
from agentforge.environments.lock import Lock
from agentforge.environments.resolving import Question, check_lock, compile_lock
from agentforge.environments.uv import Uv
from agentforge.errors import AgentForgeError
from agentforge.frameworks import Catalogue, Reference, Release

__all__ = ["main", "relock"]


async def relock(release: Release, uv: Uv, interpreters: Interpreters) -> Lock:
    """Resolve a tested release as of its manifest's moment and write its lock beside the manifest."""
    assert release.lock_path is not None
    question = Question(release.requirements, python_floor(release.python), release.as_of)
    interpreter = interpreters.find(release.python)
    lock = await compile_lock(uv, interpreter.path, question, release.reference)
    check_lock(lock, release.reference, release.distribution, release.version)
    write_atomically(release.lock_path, lock.text)
    return lock


def _chosen(catalogue: Catalogue, references: Sequence[str]) -> list[Release]:
    for text in references:
        catalogue.resolve(text)  # an unknown name or series is an error, not an empty choice
    wanted = [Reference.parse(text) for text in references or catalogue.names()]
    return [
        release
        for reference in wanted
        for release in catalogue.releases(reference.name)
        if release.requirements and reference.admits(release.version)
    ]


async def _relock_all(releases: Sequence[Release]) -> None:
    uv, interpreters = Uv(), Interpreters()
    for release in releases:
        lock = await relock(release, uv, interpreters)
        print(f"{release.reference}: {len(lock.packages)} packages -> {release.lock_path}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m agentforge.environments.relock", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("reference", nargs="*", help="name, name@series or name==version; all without one")
    parser.add_argument("--folder", type=Path, action="append", default=[], help="more manifests")
    options = parser.parse_args(arguments)
    try:
        catalogue = Catalogue.discover(options.folder, check_files=False)
        asyncio.run(_relock_all(_chosen(catalogue, options.reference)))
    except AgentForgeError as error:
        print(f"{error.code}: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
