"""Reasons: dead letters in groups, and when a worker was last heard."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from app.core.db import UtcDateTime as Time

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

DEAD = "state = 'failed' AND discarded_at IS NULL"


def where(condition: str) -> dict[str, sa.TextClause]:
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def upgrade() -> None:
    op.create_index("ix_job_dead", "job", ["tenant", "fingerprint", "finished_at"], unique=False, **where(DEAD))
    op.add_column("worker", sa.Column("beat_at", Time(), nullable=True))


def downgrade() -> None:
    op.drop_column("worker", "beat_at")
    op.drop_index("ix_job_dead", table_name="job")
