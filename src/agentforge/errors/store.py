"""Failures of the store (AF8xx)."""

from agentforge.errors.tree import AgentForgeError

__all__ = [
    "AgentVersionNotFound",
    "BlobNotFound",
    "InvalidCursor",
    "LeaseLost",
    "NotAStore",
    "RecordExists",
    "RunNotFound",
    "StoreClosed",
    "StoreFailed",
    "StoreLocked",
    "StoreReadOnly",
    "StoreTooNew",
    "UnknownStoreScheme",
    "ValueNotStorable",
]


class StoreFailed(AgentForgeError):
    """The database or the disk below it failed: full, damaged, gone."""

    code = "AF800"
    default_hint = "Check the free space and the health of the disk; restore a backup if the file is damaged."


class StoreTooNew(AgentForgeError):
    """The database was written by a newer AgentForge."""

    code = "AF801"
    origin = "user"
    http_status = 409
    default_hint = "Update AgentForge: `pip install --upgrade inferloop-agentforge`."


class NotAStore(AgentForgeError):
    """The file is no database, or one of some other program."""

    code = "AF802"
    origin = "user"
    http_status = 409
    default_hint = "Move the file away, or restore a backup of it; a new one is made where there is none."


class StoreLocked(AgentForgeError):
    """Some other process kept the database locked for longer than we wait."""

    code = "AF803"
    http_status = 503
    default_hint = "Close other programs that have the file open (a database browser, a backup), then try again."


class StoreReadOnly(AgentForgeError):
    """The database, or the folder it is in, cannot be written."""

    code = "AF804"
    origin = "user"
    http_status = 503
    default_hint = "Give your user the right to write the folder and the files in it."


class LeaseLost(AgentForgeError):
    """Another host has taken over; this one must stop writing."""

    code = "AF805"
    http_status = 409
    default_hint = "Another host runs this project now; send the command again."


class RunNotFound(AgentForgeError):
    """There is no such run."""

    code = "AF806"
    origin = "user"
    http_status = 404
    default_hint = "`agentforge runs list` shows the runs of this project."


class RecordExists(AgentForgeError):
    """What should be appended is there already."""

    code = "AF807"
    http_status = 409
    default_hint = "Nothing was written twice. Read the run again before you write to it."


class BlobNotFound(AgentForgeError):
    """A large payload is missing beside the database, or is not what it was."""

    code = "AF808"
    default_hint = "Restore the `blobs` folder from the backup that the database is from."


class ValueNotStorable(AgentForgeError):
    """A value is nothing that JSON can hold."""

    code = "AF809"
    http_status = 422
    default_hint = "Return plain data: text, numbers, lists and objects."


class AgentVersionNotFound(AgentForgeError):
    """There is no such agent version."""

    code = "AF810"
    http_status = 404
    default_hint = "Run the agent again from its file; that keeps its current version."


class UnknownStoreScheme(AgentForgeError):
    """The address of the store names a kind that we do not have."""

    code = "AF811"
    origin = "user"
    http_status = 400
    default_hint = "Use a path or `sqlite:///PATH`."


class StoreClosed(AgentForgeError):
    """The store is not open, or is closing."""

    code = "AF812"
    http_status = 503
    default_hint = "The host is stopping; send the command again."


class InvalidCursor(AgentForgeError):
    """A page was asked for with a cursor that no page gave out."""

    code = "AF813"
    origin = "user"
    http_status = 400
    default_hint = "Use the cursor of the page before unchanged, or leave it out for the first page."
