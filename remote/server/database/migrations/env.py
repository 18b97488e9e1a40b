"""Alembic's entry point: runs the migrations on the connection that `Database.migrate` hands over, in its transaction."""

from __future__ import annotations

from alembic import context

from remote.server.database.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
context.run_migrations()
