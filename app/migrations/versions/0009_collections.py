"""Collections: named sets of documents."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from app.core.db import BigId as Big
from app.core.db import UtcDateTime as Time

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "collection",
        sa.Column("id", Big, autoincrement=True, nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("created_at", Time(), nullable=False),
        sa.Column("updated_at", Time(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_collection")),
        sa.UniqueConstraint("tenant", "name", name=op.f("uq_collection_tenant_name")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_document_collection", "document", ["tenant", "collection_id", "id"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_document_collection", table_name="document")
    op.drop_table("collection")
