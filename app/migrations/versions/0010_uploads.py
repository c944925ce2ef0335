"""Uploads: the original file of a version, and documents contained in others."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from app.core.db import BigId as Big

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

BLOB = "blob_key IS NOT NULL"
PARENT = "parent_id IS NOT NULL"


def upgrade() -> None:
    op.add_column("document", sa.Column("parent_id", Big, nullable=True))
    op.add_column("document_version", sa.Column("blob_key", sa.String(length=64), nullable=True))
    op.add_column("document_version", sa.Column("media_type", sa.String(length=127), nullable=True))
    op.add_column("document_version", sa.Column("file_name", sa.String(length=255), nullable=True))
    op.add_column("document_version", sa.Column("page_count", sa.Integer(), nullable=True))
    for name, table, column, condition in (
        ("ix_document_parent", "document", "parent_id", PARENT),
        ("ix_document_version_blob", "document_version", "blob_key", BLOB),
    ):
        where = sa.text(condition)
        op.create_index(name, table, [column], unique=False, sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    op.drop_index("ix_document_version_blob", table_name="document_version")
    op.drop_index("ix_document_parent", table_name="document")
    for name in ("page_count", "file_name", "media_type", "blob_key"):
        op.drop_column("document_version", name)
    op.drop_column("document", "parent_id")
