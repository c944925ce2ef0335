"""Changes of pages, and the watches that report them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from app.core.db import BigId as Big
from app.core.db import JsonColumn, UtcDateTime

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("intake_delivery", sa.Column("failures", JsonColumn, nullable=True))
    op.create_index("ix_intake_delivery_crawl", "intake_delivery", ["tenant", "crawl_id"])
    op.create_table(
        "change_event",
        sa.Column("id", Big, primary_key=True),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("origin", sa.String(length=16), nullable=False),
        sa.Column("watch_id", sa.String(length=255), nullable=True),
        sa.Column("history_key", Big, nullable=True),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("document_id", Big, nullable=True),
        sa.Column("title", sa.Text(), nullable=True),
        sa.Column("summary", sa.Text(), nullable=True),
        sa.Column("diff_url", sa.Text(), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=True),
        sa.Column("version_id", Big, nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("extra", JsonColumn, nullable=False),
        sa.Column("detected_at", UtcDateTime, nullable=False),
        sa.Column("received_at", UtcDateTime, nullable=False),
        sa.Column("ended_at", UtcDateTime, nullable=True),
        sqlite_autoincrement=True,
    )
    op.create_index("uq_change_event", "change_event", ["tenant", "watch_id", "history_key"], unique=True)
    op.create_index("ix_change_event_tenant", "change_event", ["tenant", "id"])
    op.create_index("ix_change_event_document", "change_event", ["document_id", "id"])
    op.create_index("ix_change_event_received", "change_event", ["received_at"])
    op.create_index("ix_change_event_watch", "change_event", ["watch_id", "history_key"])
    op.create_table(
        "page_watch",
        sa.Column("id", Big, primary_key=True),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("document_id", Big, nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("watch_id", sa.String(length=64), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("is_ours", sa.Boolean(), nullable=False),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("uq_page_watch_document", "page_watch", ["document_id"], unique=True)
    op.create_index("ix_page_watch_tenant", "page_watch", ["tenant", "id"])
    op.create_index("ix_page_watch_watch", "page_watch", ["watch_id"])


def downgrade() -> None:
    op.drop_table("page_watch")
    op.drop_table("change_event")
    op.drop_index("ix_intake_delivery_crawl", "intake_delivery")
    op.drop_column("intake_delivery", "failures")
