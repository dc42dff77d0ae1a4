"""Choose the store for an address."""

import json
from os import fspath
from pathlib import Path
from typing import Any, Literal

from agentforge.errors.store import UnknownStoreScheme
from agentforge.store.interface import Store

__all__ = ["Durability", "open_store", "unfinished_specs"]

Durability = Literal["process", "full"]
"""What an acknowledged write survives: the end of the process (`kill -9`), or the machine's loss of power too."""


def open_store(address: str | Path, durability: Durability = "process") -> Store:
    """Return the store at `address`: a path, or a URL whose scheme says which (`sqlite:///path`).

    It is not connected yet: `async with open_store(path) as store`, or `await store.open()`. Blobs are kept in
    `blobs/` beside a database file.
    """
    # Imported late: records and the interface are wanted by commands that start in a fraction of SQLAlchemy's time.
    from agentforge.store.sqlite import sqlite_store

    scheme, separator, rest = fspath(address).partition("://")
    if not separator:
        return sqlite_store(Path(address), durability)
    if scheme == "sqlite":
        return sqlite_store(Path(rest.removeprefix("/")), durability)
    raise UnknownStoreScheme(f"There is no store for `{scheme}://`.")


def unfinished_specs(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return id and agent version (its `spec`) of each unfinished run in the store of some project.

    The store is only looked into: it stays as it is, whichever release wrote it, and may be open elsewhere. Raises
    StoreFailed, StoreLocked, StoreReadOnly, NotAStore.
    """
    from agentforge.store.sqlite import unfinished_specs_in

    return [(run_id, json.loads(spec)) for run_id, spec in unfinished_specs_in(path)]
