"""Job starts: priority, trace, webhook, unique keys, and stored responses for repeated requests."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from app.core.db import JsonColumn as Json
from app.core.db import UtcDateTime as Time

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

Id = sa.Uuid(as_uuid=False).with_variant(sa.String(36), "sqlite")


def upgrade() -> None:
    op.add_column("job", sa.Column("priority", sa.SmallInteger(), server_default="0", nullable=False))
    op.add_column("job", sa.Column("traceparent", sa.String(length=55), nullable=True))
    op.add_column("job", sa.Column("webhook_url", sa.Text(), nullable=True))
    op.create_table(
        "throttle",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=100), nullable=False),
        sa.Column("unique_key", sa.String(length=200), nullable=False),
        sa.Column("job_id", Id, nullable=False),
        sa.Column("free_at", Time(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "kind", "unique_key", name=op.f("pk_throttle")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_throttle_free_at", "throttle", ["free_at"])
    op.create_table(
        "debounced",
        sa.Column("job_id", Id, nullable=False),
        sa.Column("payload", Json, nullable=False),
        sa.Column("payload_version", sa.Integer(), nullable=False),
        sa.Column("since_at", Time(), nullable=False),
        sa.Column("due_at", Time(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_debounced_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_debounced")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "idempotency",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("request_hash", sa.String(length=64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("created_at", Time(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "key", name=op.f("pk_idempotency")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_idempotency_created_at", "idempotency", ["created_at"])


def downgrade() -> None:
    op.drop_table("idempotency")
    op.drop_table("debounced")
    op.drop_table("throttle")
    for name in ("webhook_url", "traceparent", "priority"):
        op.drop_column("job", name)
