"""Run the migrations on the connection that `schema.upgrade` hands over, in its transaction."""

from alembic import context

from agentforge.store.tables import metadata

connection = context.config.attributes["connection"]
# Tables are changed in a transaction everywhere: SQLite can do it, the driver just does not by itself.
context.configure(
    connection=connection,
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=connection.dialect.name == "sqlite",
)
with context.begin_transaction():
    context.run_migrations()
