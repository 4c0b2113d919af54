"""What Alembic runs: the migrations, on the connection that `llsflow.store.migrate` hands over."""

from __future__ import annotations

from alembic import context

from llsflow.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
