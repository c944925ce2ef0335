"""Web intake: webhook deliveries, and the crawls they belong to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from app.core.db import BigId as Big
from app.core.db import JsonColumn, UtcDateTime

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "intake_delivery",
        sa.Column("id", Big, primary_key=True),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("source", sa.String(length=32), nullable=False),
        sa.Column("event_type", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("body", sa.Text(), nullable=True),
        sa.Column("blob_key", sa.String(length=64), nullable=True),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("crawl_id", sa.String(length=255), nullable=True),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("answer", JsonColumn, nullable=False),
        sa.Column("jobs", sa.Integer(), nullable=False),
        sa.Column("repeats", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("request_id", sa.String(length=128), nullable=True),
        sa.Column("received_at", UtcDateTime, nullable=False),
        sa.Column("replayed_at", UtcDateTime, nullable=True),
        sqlite_autoincrement=True,
    )
    op.create_index("uq_intake_delivery", "intake_delivery", ["tenant", "source", "digest"], unique=True)
    op.create_index("ix_intake_delivery_received", "intake_delivery", ["received_at"])
    op.create_index("ix_intake_delivery_blob", "intake_delivery", ["blob_key"])
    op.create_table(
        "crawl_session",
        sa.Column("id", Big, primary_key=True),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("crawl_id", sa.String(length=255), nullable=False),
        sa.Column("operation", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("base_url", sa.Text(), nullable=True),
        sa.Column("success", sa.Boolean(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("extra", JsonColumn, nullable=False),
        sa.Column("initiated_at", UtcDateTime, nullable=True),
        sa.Column("started_at", UtcDateTime, nullable=False),
        sa.Column("completed_at", UtcDateTime, nullable=True),
        sqlite_autoincrement=True,
    )
    op.create_index("uq_crawl_session", "crawl_session", ["tenant", "crawl_id"], unique=True)


def downgrade() -> None:
    op.drop_table("crawl_session")
    op.drop_table("intake_delivery")
