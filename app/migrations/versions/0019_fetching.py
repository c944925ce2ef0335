"""Cache validators of pages (ETag, Last-Modified) for conditional requests."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("document_version", sa.Column("etag", sa.String(length=255), nullable=True))
    op.add_column("document_version", sa.Column("last_modified", sa.String(length=255), nullable=True))


def downgrade() -> None:
    op.drop_column("document_version", "last_modified")
    op.drop_column("document_version", "etag")
