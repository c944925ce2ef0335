"""The password of a locked file, stored until the file is read."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("document_version", sa.Column("password", sa.String(length=255), nullable=True))


def downgrade() -> None:
    op.drop_column("document_version", "password")
