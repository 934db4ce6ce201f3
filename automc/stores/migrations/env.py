"""Alembic's entry: runs the revisions on the connection, and in the transaction, that schema.py gives it."""

from __future__ import annotations

from alembic import context

from automc.stores.tables import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
