"""Documents with their versions, chunks and changes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from app.core.db import BigId as Big
from app.core.db import JsonColumn as Json
from app.core.db import UtcDateTime as Time

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "change",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("document_id", Big, nullable=False),
        sa.Column("op", sa.String(length=8), nullable=False),
        sa.Column("at", Time(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_change")),
    )
    op.create_index("ix_change_at", "change", ["at"], unique=False)
    op.create_index("ix_change_tenant", "change", ["tenant", "seq"], unique=False)

    op.create_table(
        "change_counter",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.Column("pruned", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_change_counter")),
    )
    op.create_table(
        "chunk",
        sa.Column("id", Big, nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("document_id", Big, nullable=False),
        sa.Column("version_id", Big, nullable=False),
        sa.Column("generation", sa.String(length=200), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("span_start", sa.Integer(), nullable=False),
        sa.Column("span_end", sa.Integer(), nullable=False),
        sa.Column("page", sa.Integer(), nullable=True),
        sa.Column("headings", Json, nullable=False),
        sa.Column("language", sa.String(length=35), nullable=True),
        sa.Column("text_hash", sa.String(length=32), nullable=False),
        sa.Column("terms", sa.LargeBinary(), nullable=False),
        sa.Column("document_terms", sa.LargeBinary(), nullable=True),
        sa.Column("vector", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_chunk")),
    )
    op.create_index("ix_chunk_document", "chunk", ["document_id", "ordinal"], unique=False)
    op.create_index("ix_chunk_tenant", "chunk", ["tenant", "document_id"], unique=False)

    op.create_table(
        "document",
        sa.Column("id", Big, nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("collection_id", Big, nullable=True),
        sa.Column("external_id", sa.String(length=512), nullable=True),
        sa.Column("url", sa.Text(), nullable=True),
        sa.Column("canonical_url", sa.Text(), nullable=True),
        sa.Column("domain", sa.String(length=300), nullable=True),
        sa.Column("title", sa.Text(), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("language", sa.String(length=35), nullable=True),
        sa.Column("country", sa.String(length=64), nullable=True),
        sa.Column("is_mobile", sa.Boolean(), nullable=False),
        sa.Column("tags", Json, nullable=False),
        sa.Column("metadata", Json, nullable=False),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("version_id", Big, nullable=True),
        sa.Column("chunk_count", sa.Integer(), nullable=False),
        sa.Column("fetched_at", Time(), nullable=True),
        sa.Column("indexed_at", Time(), nullable=True),
        sa.Column("created_at", Time(), nullable=False),
        sa.Column("updated_at", Time(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_document")),
        sa.UniqueConstraint("tenant", "canonical_url", name=op.f("uq_document_tenant_canonical_url")),
        sa.UniqueConstraint("tenant", "external_id", name=op.f("uq_document_tenant_external_id")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_document_domain", "document", ["tenant", "domain"], unique=False)
    op.create_index("ix_document_tenant", "document", ["tenant", "id"], unique=False)

    op.create_table(
        "document_version",
        sa.Column("id", Big, nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("document_id", Big, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("format", sa.String(length=16), nullable=False),
        sa.Column("content_hash", sa.String(length=64), nullable=False),
        sa.Column("url", sa.Text(), nullable=True),
        sa.Column("resolved_url", sa.Text(), nullable=True),
        sa.Column("status_code", sa.Integer(), nullable=True),
        sa.Column("crawl_session", sa.String(length=255), nullable=True),
        sa.Column("fields", Json, nullable=False),
        sa.Column("body", sa.Text(), nullable=True),
        sa.Column("html", sa.Text(), nullable=True),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("language", sa.String(length=35), nullable=True),
        sa.Column("fetched_at", Time(), nullable=False),
        sa.Column("indexed_at", Time(), nullable=True),
        sa.Column("created_at", Time(), nullable=False),
        sa.ForeignKeyConstraint(
            ["document_id"], ["document.id"], name=op.f("fk_document_version_document_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_document_version")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_document_version_document", "document_version", ["document_id", "id"], unique=False)
    op.create_index("ix_document_version_session", "document_version", ["tenant", "crawl_session", "id"], unique=False)
    op.execute("INSERT INTO change_counter (id, value, pruned) VALUES (1, 0, 0)")


def downgrade() -> None:
    op.drop_index("ix_document_version_session", table_name="document_version")
    op.drop_index("ix_document_version_document", table_name="document_version")

    op.drop_table("document_version")
    op.drop_index("ix_document_tenant", table_name="document")
    op.drop_index("ix_document_domain", table_name="document")

    op.drop_table("document")
    op.drop_index("ix_chunk_tenant", table_name="chunk")
    op.drop_index("ix_chunk_document", table_name="chunk")

    op.drop_table("chunk")
    op.drop_table("change_counter")
    op.drop_index("ix_change_tenant", table_name="change")
    op.drop_index("ix_change_at", table_name="change")

    op.drop_table("change")
