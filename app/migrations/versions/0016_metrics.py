"""Metrics: durations of requests and of steps of work."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from app.core.db import BigId as Big
from app.core.db import UtcDateTime

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

JobId = sa.Uuid(as_uuid=False).with_variant(sa.String(36), "sqlite")


def upgrade() -> None:
    op.create_table(
        "request_metric",
        sa.Column("id", Big, primary_key=True),
        sa.Column("tenant", sa.String(length=64), nullable=True),
        sa.Column("at", UtcDateTime, nullable=False),
        sa.Column("method", sa.String(length=16), nullable=False),
        sa.Column("path", sa.String(length=500), nullable=False),
        sa.Column("route", sa.String(length=200), nullable=False),
        sa.Column("status_code", sa.Integer(), nullable=False),
        sa.Column("duration_ms", sa.Double(), nullable=False),
        sa.Column("request_id", sa.String(length=128), nullable=False),
        sa.Column("client_ip", sa.String(length=64), nullable=True),
    )
    op.create_index("ix_request_metric_tenant", "request_metric", ["tenant", "at"])
    op.create_index("ix_request_metric_at", "request_metric", ["at"])
    op.create_table(
        "operation_metric",
        sa.Column("id", Big, primary_key=True),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("at", UtcDateTime, nullable=False),
        sa.Column("operation_type", sa.String(length=50), nullable=False),
        sa.Column("operation_name", sa.String(length=100), nullable=False),
        sa.Column("duration_ms", sa.Double(), nullable=False),
        sa.Column("success", sa.Boolean(), nullable=False),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("request_id", sa.String(length=128), nullable=True),
        sa.Column("job_id", JobId, nullable=True),
        sa.Column("crawl_id", sa.String(length=255), nullable=True),
        sa.Column("document_url", sa.Text(), nullable=True),
    )
    op.create_index("ix_operation_metric_tenant", "operation_metric", ["tenant", "at"])
    op.create_index("ix_operation_metric_at", "operation_metric", ["at"])


def downgrade() -> None:
    op.drop_table("operation_metric")
    op.drop_table("request_metric")
