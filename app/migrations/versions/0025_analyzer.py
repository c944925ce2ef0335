"""The version of the analyzer that made the terms of a chunk."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("chunk", sa.Column("analyzer", sa.SmallInteger(), nullable=False, server_default="1"))
    op.create_index("ix_chunk_analyzer", "chunk", ["analyzer", "document_id"])


def downgrade() -> None:
    op.drop_index("ix_chunk_analyzer", "chunk")
    op.drop_column("chunk", "analyzer")
