"""Index generations: vectors of another model next to the searched ones, and the active generation."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from app.core.db import BigId as Big
from app.core.db import UtcDateTime

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "index_generation",
        sa.Column("name", sa.String(length=200), primary_key=True),
        sa.Column("dimension", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("after_chunk", Big, nullable=False, server_default="0"),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("changed_at", UtcDateTime, nullable=False),
    )
    op.create_table(
        "chunk_vector",
        sa.Column("chunk_id", Big, sa.ForeignKey("chunk.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("generation", sa.String(length=200), primary_key=True),
        sa.Column("vector", sa.LargeBinary(), nullable=True),
    )


def downgrade() -> None:
    op.drop_table("chunk_vector")
    op.drop_table("index_generation")
