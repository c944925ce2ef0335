"""Count a tenant's open jobs correctly, without reading ended ones."""

from __future__ import annotations

import sqlalchemy as sa

from app.core.db import Database
from app.core.ids import uuid7
from app.jobs.admission import quota
from app.jobs.definition import Job
from app.jobs.ledger import claims, commands, workers
from app.jobs.ledger.enqueue import enqueue_many


class Counted(Job, kind="tests.counts.counted"):
    number: int = 0


def test_open_jobs_counts_running_and_waiting_jobs_of_the_tenant(db: Database) -> None:
    jobs = [Counted(number=number) for number in range(6)]
    rows = db.transaction(enqueue_many, jobs, tenant="acme")
    db.transaction(enqueue_many, jobs, tenant="rival")
    worker = uuid7()
    db.transaction(workers.register, worker, ["default"], 1, None)
    db.transaction(claims.claim, [rows[0].id, rows[1].id], worker)
    db.transaction(commands.cancel, "acme", rows[5].id)
    assert db.read(quota.open_jobs, "acme") == 5
    assert db.read(quota.open_jobs, "acme", up_to=2) == 2 + 2  # two running, and at most two waiting
    assert db.read(quota.open_jobs, "empty") == 0


def test_each_part_of_the_count_uses_an_index_of_open_jobs(db: Database) -> None:
    statements: list[tuple[str, object]] = []

    def record(connection: object, cursor: object, statement: str, parameters: object, *_: object) -> None:
        statements.append((statement, parameters))

    sa.event.listen(db.engine, "before_cursor_execute", record)
    db.read(quota.open_jobs, "acme", up_to=10)
    sa.event.remove(db.engine, "before_cursor_execute", record)
    statements = [pair for pair in statements if "job" in pair[0]]
    word = "EXPLAIN" if db.dialect == "postgresql" else "EXPLAIN QUERY PLAN"
    plans = []
    with db.engine.connect() as connection:
        if db.dialect == "postgresql":
            connection.exec_driver_sql("SET enable_seqscan = off")  # the table is empty here
        for statement, parameters in statements:
            rows = connection.exec_driver_sql(f"{word} {statement}", parameters)  # type: ignore[arg-type]
            plans.append(" ".join(str(row) for row in rows))
    assert ["ix_job_waiting" in plans[0], "ix_job_running" in plans[1]] == [True, True], plans
