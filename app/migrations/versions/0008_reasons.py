"""Inspection: groups of dead letters, job log lines, bulk jobs, and the last heartbeat of a worker."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from app.core.db import BigId as Big
from app.core.db import JsonColumn as Json
from app.core.db import UtcDateTime as Time

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

Id = sa.Uuid(as_uuid=False).with_variant(sa.String(36), "sqlite")
DEAD = "state = 'failed' AND discarded_at IS NULL"


def where(condition: str) -> dict[str, sa.TextClause]:
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def upgrade() -> None:
    op.create_index("ix_job_dead", "job", ["tenant", "fingerprint", "finished_at"], unique=False, **where(DEAD))
    op.add_column("worker", sa.Column("beat_at", Time(), nullable=True))
    op.create_table(
        "job_log",
        sa.Column("id", Big, autoincrement=True, nullable=False),
        sa.Column("job_id", Id, nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("at", Time(), nullable=False),
        sa.Column("level", sa.String(length=10), nullable=False),
        sa.Column("logger", sa.String(length=100), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("fields", Json, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_job_log_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_log")),
    )
    op.create_table(
        "bulk",
        sa.Column("job_id", Id, nullable=False),
        sa.Column("last_id", Id, nullable=True),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("refused", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_bulk_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_bulk")),
    )
    op.create_index("ix_job_log_job", "job_log", ["job_id", "id"], unique=False)
    op.create_index("ix_job_log_at", "job_log", ["at"], unique=False)


def downgrade() -> None:
    op.drop_table("bulk")
    op.drop_table("job_log")
    op.drop_column("worker", "beat_at")
    op.drop_index("ix_job_dead", table_name="job")
