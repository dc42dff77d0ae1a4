"""Bring a database's tables up to date, or say why not. Runs at every open, in one transaction of the caller's.

Alembic is imported only if something has to be done: opening a database that is up to date should cost nothing.
"""

from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, String, Table, inspect, select

from agentforge.errors.store import NotAStore, StoreTooNew

__all__ = ["HEAD", "MIGRATIONS", "upgrade"]

HEAD = "0004"
"""The newest revision in `migrations/versions`; a test compares them."""
MIGRATIONS = Path(__file__).parent / "migrations"

_version = Table("alembic_version", MetaData(), Column("version_num", String(32), nullable=False))


def upgrade(connection: Connection, name: str, *, head: str = HEAD, migrations: Path = MIGRATIONS) -> None:
    """Migrate the database called `name` to `head`. Raises `StoreTooNew`, `NotAStore`."""
    revision = _revision(connection, name)
    if revision == head:
        return
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(migrations))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is not None and revision not in known:
        raise StoreTooNew(f"`{name}` has schema `{revision}`; this AgentForge knows them up to `{head}`.")
    command.upgrade(config, head)


def _revision(connection: Connection, name: str) -> str | None:
    tables = inspect(connection).get_table_names()
    if _version.name in tables:
        return connection.scalar(select(_version.c.version_num))
    if tables:
        raise NotAStore(f"`{name}` is a database of another program: it has the table `{tables[0]}`.")
    return None
