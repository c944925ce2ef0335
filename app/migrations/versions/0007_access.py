"""Access: tenants, API keys, audit entries, and sizes of stored contents."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from app.core.db import BigId as Big
from app.core.db import JsonColumn as Json
from app.core.db import UtcDateTime as Time

NOT_STARTED = sa.text("state IN ('scheduled', 'queued', 'retrying', 'waiting')")

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tenant",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("max_open_jobs", sa.Integer(), nullable=True),
        sa.Column("max_documents", sa.Integer(), nullable=True),
        sa.Column("max_bytes", Big, nullable=True),
        sa.Column("created_at", Time(), nullable=False),
        sa.Column("disabled_at", Time(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenant")),
    )
    op.execute("INSERT INTO tenant (id, title, created_at) VALUES ('default', 'Default', CURRENT_TIMESTAMP)")
    op.create_table(
        "api_key",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("scopes", Json, nullable=False),
        sa.Column("rate_limits", Json, nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("previous_hash", sa.LargeBinary(), nullable=True),
        sa.Column("previous_until", Time(), nullable=True),
        sa.Column("created_by", sa.String(length=64), nullable=False),
        sa.Column("created_at", Time(), nullable=False),
        sa.Column("expires_at", Time(), nullable=True),
        sa.Column("last_used_at", Time(), nullable=True),
        sa.Column("revoked_at", Time(), nullable=True),
        sa.ForeignKeyConstraint(["tenant"], ["tenant.id"], name=op.f("fk_api_key_tenant")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_key")),
    )
    op.create_index("ix_api_key_tenant", "api_key", ["tenant", "id"], unique=False)
    op.create_table(
        "audit_log",
        sa.Column("id", Big, nullable=False),
        sa.Column("at", Time(), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("actor", sa.String(length=64), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.String(length=300), nullable=False),
        sa.Column("details", Json, nullable=False),
        sa.Column("request_id", sa.String(length=128), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_audit_log_tenant", "audit_log", ["tenant", "id"], unique=False)
    op.create_index("ix_audit_log_at", "audit_log", ["at"], unique=False)
    op.create_index("ix_job_waiting", "job", ["tenant"], sqlite_where=NOT_STARTED, postgresql_where=NOT_STARTED)
    op.add_column("document_version", sa.Column("size_bytes", Big, server_default="0", nullable=False))
    op.create_index("ix_document_version_size", "document_version", ["tenant", "size_bytes"], unique=False)
    sizes = {"sqlite": "length(CAST(coalesce({}, '') AS BLOB))", "postgresql": "octet_length(coalesce({}, ''))"}
    size = sizes[op.get_bind().dialect.name]
    op.execute(f"UPDATE document_version SET size_bytes = {size.format('body')} + {size.format('html')}")


def downgrade() -> None:
    op.drop_index("ix_document_version_size", table_name="document_version")
    op.drop_column("document_version", "size_bytes")
    op.drop_index("ix_job_waiting", table_name="job")
    op.drop_index("ix_audit_log_at", table_name="audit_log")
    op.drop_index("ix_audit_log_tenant", table_name="audit_log")

    op.drop_table("audit_log")
    op.drop_index("ix_api_key_tenant", table_name="api_key")

    op.drop_table("api_key")
    op.drop_table("tenant")
