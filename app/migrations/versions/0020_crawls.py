"""Built-in crawls: the pages of each crawl."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from app.core.db import BigId as Big
from app.core.db import UtcDateTime
from app.jobs.models import JobId

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("crawl_session", sa.Column("remote_id", sa.String(length=255), nullable=True))
    op.add_column("crawl_session", sa.Column("checked_at", UtcDateTime, nullable=True))
    op.add_column("crawl_session", sa.Column("job_id", sa.String(length=36), nullable=True))
    op.create_index("ix_crawl_session_remote", "crawl_session", ["remote_id"])
    op.create_index("ix_crawl_session_crawl", "crawl_session", ["crawl_id"])
    op.create_table(
        "crawl_page",
        sa.Column("id", Big, primary_key=True),
        sa.Column("crawl_id", JobId, sa.ForeignKey("job.id", ondelete="CASCADE"), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("url_key", sa.String(length=64), nullable=False),
        sa.Column("depth", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("number", sa.Integer(), nullable=True),
        sa.Column("document_id", Big, nullable=True),
        sa.Column("version_id", Big, nullable=True),
        sa.Column("error_code", sa.String(length=64), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("uq_crawl_page", "crawl_page", ["crawl_id", "url_key"], unique=True)
    op.create_index("ix_crawl_page_next", "crawl_page", ["crawl_id", "state", "tries", "id"])


def downgrade() -> None:
    op.drop_table("crawl_page")
    op.drop_index("ix_crawl_session_crawl", "crawl_session")
    op.drop_index("ix_crawl_session_remote", "crawl_session")
    for column in ("remote_id", "checked_at", "job_id"):
        op.drop_column("crawl_session", column)
