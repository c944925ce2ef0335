"""Limits: pauses, caps and weights of queues, kinds and tenants; indexes in the order of fair admission."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from app.core.db import UtcDateTime as Time

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


FED, UNFED = "state = 'queued' AND admitted_at IS NOT NULL", "state = 'queued' AND admitted_at IS NULL"


def index(name: str, *columns: str, where: str) -> None:
    """Drop and recreate the index."""
    op.drop_index(name, table_name="job")
    condition = sa.text(where)
    op.create_index(name, "job", list(columns), sqlite_where=condition, postgresql_where=condition)


def upgrade() -> None:
    index("ix_job_unfed", "queue", "priority", "tenant", "kind", "id", where=UNFED)
    index("ix_job_fed", "queue", "tenant", "admitted_at", where=FED)
    op.create_table(
        "gate",
        sa.Column("scope", sa.String(length=8), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("paused_at", Time(), nullable=True),
        sa.Column("paused_by", sa.String(length=128), nullable=True),
        sa.Column("pause_reason", sa.String(length=500), nullable=True),
        sa.Column("running_cap", sa.Integer(), nullable=True),
        sa.Column("declared_cap", sa.Integer(), nullable=True),
        sa.Column("weight", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "name", name=op.f("pk_gate")),
        sa.CheckConstraint("scope IN ('queue', 'kind', 'tenant')", name="scope"),
    )


def downgrade() -> None:
    op.drop_table("gate")
    index("ix_job_fed", "admitted_at", where=FED)
    index("ix_job_unfed", "queue", "id", where=UNFED)
