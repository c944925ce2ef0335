"""Attempts: runs in a row that asked to run later share a row."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("attempt", sa.Column("repeats", sa.Integer(), nullable=False, server_default="1"))


def downgrade() -> None:
    op.drop_column("attempt", "repeats")
