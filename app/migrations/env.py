"""Alembic environment: uses the connection of core.migrate, or the settings for the `alembic` command."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context

import app.documents.models
import app.jobs.models
import app.search.models  # noqa: F401
from app.core.db import Base, database


def migrate(connection: sa.Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


connection = context.config.attributes.get("connection")
if connection is not None:
    migrate(connection)
else:
    with database().engine.connect() as new_connection:
        migrate(new_connection)
