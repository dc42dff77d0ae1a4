"""Choose the store for an address."""

from os import fspath
from pathlib import Path
from typing import Literal

from agentforge.errors.store import UnknownStoreScheme
from agentforge.store.interface import Store

__all__ = ["Durability", "open_store"]

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
