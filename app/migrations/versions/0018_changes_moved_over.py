"""A key that identifies changes imported from another system."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("change_event", sa.Column("import_key", sa.String(length=64), nullable=True))
    op.create_index("uq_change_event_import", "change_event", ["tenant", "import_key"], unique=True)


def downgrade() -> None:
    op.drop_index("uq_change_event_import", "change_event")
    op.drop_column("change_event", "import_key")
