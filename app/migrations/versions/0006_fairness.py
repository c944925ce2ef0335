"""gates: pauses, caps and weights of queues, kinds and tenants."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from app.core.db import UtcDateTime as Time

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
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
