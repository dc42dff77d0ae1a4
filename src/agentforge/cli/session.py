"""A command's connection to its project's host."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from agentforge.cli.output import say

if TYPE_CHECKING:
    from agentforge.api.client import Forge

__all__ = ["JsonOption", "ProjectOption", "with_forge"]

T = TypeVar("T")

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
ProjectOption = Annotated[
    Path, typer.Option("--project", "-C", help="Folder of the project (default: found upwards from here).")
]


def with_forge(project: Path, work: "Callable[[Forge], Awaitable[T]]") -> T:
    """Run `work` with a client of the project's host, started in the background if there is none."""

    # Imported late, like all that only some commands need: `--help` answers at once.
    from agentforge.api.client import Forge

    async def connected() -> T:
        async with Forge(project, background=True, notice=say) as forge:
            return await work(forge)

    import asyncio

    return asyncio.run(connected())
