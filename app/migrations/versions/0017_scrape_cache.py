"""Cache of scraped pages."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from app.core.db import BigId as Big
from app.core.db import UtcDateTime

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "scrape_cache",
        sa.Column("id", Big, primary_key=True),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("cache_key", sa.String(length=64), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("source", sa.String(length=32), nullable=False),
        sa.Column("raw", sa.Text(), nullable=True),
        sa.Column("cleaned", sa.Text(), nullable=True),
        sa.Column("content_type", sa.String(length=64), nullable=True),
        sa.Column("screenshot", sa.Text(), nullable=True),
        sa.Column("screenshot_format", sa.String(length=64), nullable=True),
        sa.Column("scraped_at", UtcDateTime, nullable=False),
        sa.Column("expires_at", UtcDateTime, nullable=False),
        sa.Column("access_count", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("last_accessed_at", UtcDateTime, nullable=True),
        sqlite_autoincrement=True,
    )
    op.create_index("uq_scrape_cache", "scrape_cache", ["tenant", "cache_key"], unique=True)
    op.create_index("ix_scrape_cache_expires", "scrape_cache", ["expires_at"])


def downgrade() -> None:
    op.drop_table("scrape_cache")
