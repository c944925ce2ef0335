"""Batches: many documents in one body, and the result of each line."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from app.core.db import BigId as Big
from app.jobs.models import JobId

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "document_batch",
        sa.Column("job_id", JobId, sa.ForeignKey("job.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("blob_key", sa.String(length=64), nullable=False),
    )
    op.create_index("ix_document_batch_blob_key", "document_batch", ["blob_key"])
    op.create_table(
        "document_batch_line",
        sa.Column("job_id", JobId, sa.ForeignKey("job.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("line", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("document_id", Big, nullable=True),
        sa.Column("version_id", Big, nullable=True),
        sa.Column("error_code", sa.String(length=64), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
    )


def downgrade() -> None:
    op.drop_table("document_batch_line")
    op.drop_table("document_batch")
