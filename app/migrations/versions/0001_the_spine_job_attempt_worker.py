"""Core tables: job, attempt, worker."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from app.core.db import BigId as Big
from app.core.db import JsonColumn as Json
from app.core.db import UtcDateTime as Time

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


Id = sa.Uuid(as_uuid=False).with_variant(sa.String(36), "sqlite")


def where(condition: str) -> dict[str, sa.TextClause]:
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


# The allowed moves of a job; written out, since a migration must not change with the program.
MOVES = [
    "scheduled>queued",
    "retrying>queued",
    "queued>running",
    "queued>failed",
    "running>succeeded",
    "running>failed",
    "running>cancelled",
    "running>retrying",
    "running>queued",
    "running>waiting",
    "waiting>queued",
    "waiting>failed",
    "waiting>cancelled",
    "scheduled>cancelled",
    "queued>cancelled",
    "retrying>cancelled",
    "failed>queued",
    "cancelled>queued",
]
STATES = ["scheduled", "queued", "running", "waiting", "retrying", "succeeded", "failed", "cancelled"]


def listed(words: list[str]) -> str:
    return ", ".join(f"'{word}'" for word in words)


def refuse_other_moves() -> None:
    """Create the trigger that refuses every other move, by any statement."""
    condition = f"OLD.state <> NEW.state AND (OLD.state || '>' || NEW.state) NOT IN ({listed(MOVES)})"
    if op.get_context().dialect.name == "sqlite":
        op.execute(
            f"CREATE TRIGGER job_moves BEFORE UPDATE OF state ON job WHEN {condition} "
            "BEGIN SELECT RAISE(ABORT, 'a job cannot make this move'); END"
        )
        return
    op.execute(
        "CREATE FUNCTION job_move_refused() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE check_violation USING MESSAGE = 'a job cannot make this move: ' || OLD.state || ' to ' || NEW.state; "
        "END $$"
    )
    op.execute(
        f"CREATE TRIGGER job_moves BEFORE UPDATE OF state ON job FOR EACH ROW WHEN ({condition}) "
        "EXECUTE FUNCTION job_move_refused()"
    )


def upgrade() -> None:
    op.create_table(
        "job",
        sa.Column("id", Id, nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=100), nullable=False),
        sa.Column("payload_version", sa.Integer(), nullable=False),
        sa.Column("payload", Json, nullable=False),
        sa.Column("queue", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("max_tries", sa.Integer(), nullable=False),
        sa.Column("crashes", sa.Integer(), nullable=False),
        sa.Column("worker_id", Id, nullable=True),
        sa.Column("due_at", Time(), nullable=False),
        sa.Column("admitted_at", Time(), nullable=True),
        sa.Column("claimed_at", Time(), nullable=True),
        sa.Column("started_at", Time(), nullable=True),
        sa.Column("finished_at", Time(), nullable=True),
        sa.Column("cancel_requested_at", Time(), nullable=True),
        sa.Column("expires_at", Time(), nullable=True),
        sa.Column("parent_id", Id, nullable=True),
        sa.Column("child_index", sa.Integer(), nullable=True),
        sa.Column("open_children", sa.Integer(), nullable=False),
        sa.Column("unique_key", sa.String(length=200), nullable=True),
        sa.Column("schedule_id", Big, nullable=True),
        sa.Column("document_id", Big, nullable=True),
        sa.Column("error_type", sa.String(length=200), nullable=True),
        sa.Column("error_code", sa.String(length=100), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("fingerprint", sa.String(length=32), nullable=True),
        sa.Column("result", Json, nullable=True),
        sa.Column("progress", Json, nullable=True),
        sa.Column("request_id", sa.String(length=128), nullable=True),
        sa.Column("created_at", Time(), nullable=False),
        sa.Column("discarded_at", Time(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job")),
        sa.CheckConstraint(f"state IN ({listed(STATES)})", name="state"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_job_document", "job", ["document_id"], unique=False, **where("document_id IS NOT NULL"))
    op.create_index("ix_job_due", "job", ["due_at"], unique=False, **where("state IN ('scheduled', 'retrying')"))
    op.create_index(
        "ix_job_expires", "job", ["expires_at"], unique=False, **where("state = 'queued' AND expires_at IS NOT NULL")
    )
    op.create_index(
        "ix_job_fed", "job", ["admitted_at"], unique=False, **where("state = 'queued' AND admitted_at IS NOT NULL")
    )
    op.create_index("ix_job_parent", "job", ["parent_id"], unique=False, **where("parent_id IS NOT NULL"))
    op.create_index(
        "ix_job_running",
        "job",
        ["worker_id"],
        unique=False,
        **where("state = 'running' AND worker_id IS NOT NULL"),
    )
    op.create_index("ix_job_tenant", "job", ["tenant", "id"], unique=False)
    op.create_index(
        "ix_job_unfed", "job", ["queue", "id"], unique=False, **where("state = 'queued' AND admitted_at IS NULL")
    )
    op.create_index(
        "uq_job_unique_key",
        "job",
        ["tenant", "kind", "unique_key"],
        unique=True,
        **where("unique_key IS NOT NULL AND state IN ('scheduled', 'queued', 'running', 'waiting', 'retrying')"),
    )

    op.create_table(
        "worker",
        sa.Column("id", Id, nullable=False),
        sa.Column("host", sa.String(length=300), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("pid_birth", Big, nullable=False),
        sa.Column("queues", Json, nullable=False),
        sa.Column("threads", sa.Integer(), nullable=False),
        sa.Column("health_url", sa.String(length=200), nullable=True),
        sa.Column("beat", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("version", sa.String(length=32), nullable=False),
        sa.Column("started_at", Time(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_worker")),
    )
    op.create_table(
        "attempt",
        sa.Column("job_id", Id, nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("worker_id", Id, nullable=True),
        sa.Column("claimed_at", Time(), nullable=True),
        sa.Column("started_at", Time(), nullable=True),
        sa.Column("finished_at", Time(), nullable=True),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("error_type", sa.String(length=200), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("traceback", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_attempt_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "fence", name=op.f("pk_attempt")),
        sqlite_with_rowid=False,
    )
    refuse_other_moves()


def downgrade() -> None:
    op.drop_table("attempt")
    op.drop_table("worker")
    op.drop_index("uq_job_unique_key", table_name="job")
    op.drop_index("ix_job_unfed", table_name="job")
    op.drop_index("ix_job_tenant", table_name="job")
    op.drop_index("ix_job_running", table_name="job")
    op.drop_index("ix_job_parent", table_name="job")
    op.drop_index("ix_job_fed", table_name="job")
    op.drop_index("ix_job_expires", table_name="job")
    op.drop_index("ix_job_due", table_name="job")
    op.drop_index("ix_job_document", table_name="job")

    op.drop_table("job")
    if op.get_context().dialect.name == "postgresql":
        op.execute("DROP FUNCTION job_move_refused()")
