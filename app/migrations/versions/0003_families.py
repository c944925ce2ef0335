"""Children: counters of a parent, and the rule of its wait."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

COUNTS = ("children", "failed_children", "settled_children", "settled_failed")


def where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def upgrade() -> None:
    for name in COUNTS:
        op.add_column("job", sa.Column(name, sa.Integer(), server_default="0", nullable=False))
    op.add_column("job", sa.Column("family_rule", sa.String(length=32), nullable=True))
    op.add_column("job", sa.Column("family_limit", sa.Integer(), nullable=True))
    op.add_column("job", sa.Column("cut_children", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.drop_index("ix_job_parent", table_name="job")
    op.create_index("uq_job_child", "job", ["parent_id", "child_index"], unique=True, **where("parent_id IS NOT NULL"))
    op.create_index("ix_job_settled", "job", ["id"], unique=False, **where("state = 'waiting' AND open_children = 0"))
    op.create_index("ix_job_cut", "job", ["id"], unique=False, **where("cut_children"))


def downgrade() -> None:
    for name in ("ix_job_cut", "ix_job_settled", "uq_job_child"):
        op.drop_index(name, table_name="job")
    op.create_index("ix_job_parent", "job", ["parent_id"], unique=False, **where("parent_id IS NOT NULL"))
    for name in ("cut_children", "family_limit", "family_rule", *reversed(COUNTS)):
        op.drop_column("job", name)
