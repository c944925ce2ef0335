"""Pages of crawls by pattern, and documents under the canonical form of their URL."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from app.core.errors import InvalidInput
from app.documents.urls import canonical

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

BATCH = 1000
DOCUMENT = sa.table(
    "document", sa.column("id", sa.BigInteger), sa.column("tenant", sa.Text), sa.column("url", sa.Text),
    sa.column("canonical_url", sa.Text),
)  # fmt: skip


def upgrade() -> None:
    op.add_column("crawl_page", sa.Column("pattern", sa.String(length=64), nullable=True))
    op.create_index("ix_crawl_page_pattern", "crawl_page", ["crawl_id", "pattern"])
    _respell()


def downgrade() -> None:
    op.drop_index("ix_crawl_page_pattern", "crawl_page")
    op.drop_column("crawl_page", "pattern")


def _respell() -> None:
    """Store canonical URLs in their present form.

    Of two documents with the same one the older gets it, and the other keeps the form it had.
    """
    connection = op.get_bind()
    table, after = DOCUMENT.c, 0
    same = DOCUMENT.alias("same")
    is_taken = sa.exists().where(same.c.tenant == table.tenant, same.c.canonical_url == sa.bindparam("new"))
    update = sa.update(DOCUMENT).where(table.id == sa.bindparam("row_id"), ~is_taken)
    update = update.values(canonical_url=sa.bindparam("new"))
    query = sa.select(table.id, table.url, table.canonical_url).where(table.url.is_not(None)).order_by(table.id)
    while rows := connection.execute(query.where(table.id > after).limit(BATCH)).all():
        after = rows[-1].id
        for row in rows:
            try:
                spelling = canonical(row.url)
            except InvalidInput:
                continue
            if spelling != row.canonical_url:
                connection.execute(update, {"row_id": row.id, "new": spelling})
