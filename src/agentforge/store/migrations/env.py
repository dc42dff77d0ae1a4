"""Run the migrations on the connection that `schema.upgrade` hands over, in the transaction that it has begun."""

from alembic import context

from agentforge.store.tables import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    render_as_batch=connection.dialect.name == "sqlite",
)
with context.begin_transaction():
    context.run_migrations()
