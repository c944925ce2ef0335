"""Alembic's way in: the connection comes from core.migrate, or from the settings for `alembic` itself."""

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


given = context.config.attributes.get("connection")
if given is not None:
    migrate(given)
else:
    with database().engine.connect() as opened:
        migrate(opened)
