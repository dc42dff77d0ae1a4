"""What a kind of database has to offer so that `SqlStore` can keep its tables there."""

from abc import ABC, abstractmethod
from typing import ClassVar

from sqlalchemy import Engine
from sqlalchemy.engine.interfaces import DBAPIConnection

from agentforge.errors import AgentForgeError
from agentforge.store.blobs import FileBlobs

__all__ = ["Database"]


class Database(ABC):
    """One database. `open` and `close` are called once, from any thread."""

    begin: ClassVar[str]
    """Begins a transaction that no other writer can make fail later."""
    readers: int
    """How many threads read at once."""
    blobs: FileBlobs
    engine: Engine

    @abstractmethod
    def open(self) -> None:
        """Check that the database is there and usable, and make `blobs` ready."""

    @abstractmethod
    def writer_connection(self) -> DBAPIConnection:
        """Return a connection of the driver that begins no transaction on its own."""

    @abstractmethod
    def close(self) -> None:
        """Close every connection."""

    @abstractmethod
    def translate(self, error: Exception) -> AgentForgeError | None:
        """Return our error for one of the driver's, `None` for an error of another origin."""

    @abstractmethod
    def is_fatal(self, error: Exception) -> bool:
        """Whether the whole transaction failed (disk, lock), not just one statement's data."""
