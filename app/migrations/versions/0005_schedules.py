"""Schedules and their ticks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from app.core.db import BigId as Big
from app.core.db import JsonColumn as Json
from app.core.db import UtcDateTime as Time

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

Id = sa.Uuid(as_uuid=False).with_variant(sa.String(36), "sqlite")
OPEN = "schedule_id IS NOT NULL AND state IN ('scheduled', 'queued', 'running', 'waiting', 'retrying')"


def where(condition: str) -> dict[str, sa.TextClause]:
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def upgrade() -> None:
    op.create_table(
        "schedule",
        sa.Column("id", Big, nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("in_code", sa.Boolean(), nullable=False),
        sa.Column("kind", sa.String(length=100), nullable=False),
        sa.Column("payload_version", sa.Integer(), nullable=False),
        sa.Column("payload", Json, nullable=False),
        sa.Column("cron", sa.String(length=100), nullable=True),
        sa.Column("every_s", sa.Integer(), nullable=True),
        sa.Column("timezone", sa.String(length=64), nullable=False),
        sa.Column("anchor_at", Time(), nullable=False),
        sa.Column("catch_up", sa.String(length=8), nullable=False),
        sa.Column("catch_up_limit", sa.Integer(), nullable=False),
        sa.Column("overlap", sa.String(length=8), nullable=False),
        sa.Column("next_at", Time(), nullable=True),
        sa.Column("planned_at", Time(), nullable=False),
        sa.Column("last_at", Time(), nullable=True),
        sa.Column("paused_at", Time(), nullable=True),
        sa.Column("created_at", Time(), nullable=False),
        sa.Column("updated_at", Time(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedule")),
        sa.UniqueConstraint("tenant", "name", name=op.f("uq_schedule_tenant_name")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_schedule_next", "schedule", ["next_at"], unique=False, **where("paused_at IS NULL"))
    op.create_table(
        "schedule_tick",
        sa.Column("schedule_id", Big, nullable=False),
        sa.Column("tick_at", Time(), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("job_id", Id, nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("written_at", Time(), nullable=False),
        sa.ForeignKeyConstraint(
            ["schedule_id"], ["schedule.id"], name=op.f("fk_schedule_tick_schedule_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("schedule_id", "tick_at", name=op.f("pk_schedule_tick")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_schedule_tick_written", "schedule_tick", ["written_at"], unique=False)
    op.create_index(
        "ix_schedule_tick_waiting",
        "schedule_tick",
        ["schedule_id", "tick_at"],
        unique=False,
        **where("outcome = 'waiting'"),
    )
    op.create_index("ix_job_schedule", "job", ["schedule_id"], unique=False, **where(OPEN))


def downgrade() -> None:
    op.drop_index("ix_job_schedule", table_name="job")
    op.drop_table("schedule_tick")
    op.drop_table("schedule")
